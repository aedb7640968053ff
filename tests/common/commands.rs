//! Programs of the system that tests run inside a node's namespace.

use std::process::{Command, Stdio};

use netft_lab::Netns;

/// Debian's package of each program that a test may ask for.
const PACKAGES: [(&str, &str); 2] = [("nft", "nftables"), ("ip", "iproute2")];

/// False, with a line that says so, where one of `programs` is missing. In CI that is a failure.
pub fn has_programs(programs: &[&str]) -> bool {
    programs.iter().all(|program| {
        let mut version = Command::new(program);
        version.arg("-V").stdout(Stdio::null()).stderr(Stdio::null());
        let is_there = version.status().is_ok();
        let package =
            PACKAGES.iter().find(|(name, _)| name == program).map_or(*program, |(_, of)| of);
        !skip_without(is_there, package)
    })
}

/// Says that a test is skipped for want of a package; in CI that is a failure.
pub fn skip_without(is_there: bool, package: &str) -> bool {
    skip_unless(is_there, package, "NETFT_REQUIRE_NETNS")
}

/// The same for the package of a server.
pub fn skip_without_server(is_there: bool, package: &str) -> bool {
    skip_unless(is_there, package, "NETFT_REQUIRE_SERVERS")
}

fn skip_unless(is_there: bool, package: &str, variable: &str) -> bool {
    let required = std::env::var_os(variable).is_some_and(|value| value == "1");
    assert!(is_there || !required, "this test needs the package {package}");
    if !is_there {
        println!("SKIP: the package {package} is not installed");
    }
    !is_there
}

/// Output of `ip` with the words of a line.
pub fn run_ip(netns: &Netns, line: &str) -> String {
    run_program(netns, "ip", &line.split(' ').collect::<Vec<_>>())
}

/// Gives `rules` to nft(8).
pub fn run_nft(netns: &Netns, rules: &str) {
    run_program(netns, "nft", &[rules]);
}

/// Output of a program that must succeed.
pub fn run_program(netns: &Netns, program: &str, arguments: &[&str]) -> String {
    let output = netns.command_inside(program).unwrap().args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
