//! Writes the manual pages and the shell completions from the programs' own arguments and table of
//! configuration keys: `cargo run --example reference -- FOLDER`. `scripts/package` packs them.

mod config_page;

use std::{env, error::Error, fs, path::Path};

use clap_complete::{Shell, generate_to};
use clap_mangen::Man;

/// Manual and source of every page, as its header shows.
const PAGE_SOURCE: &str = concat!("netft ", env!("CARGO_PKG_VERSION"));

fn main() -> Result<(), Box<dyn Error>> {
    let folder = env::args_os().nth(1).ok_or("give the folder to write to")?;
    let folder = Path::new(&folder);
    let (pages, completions) = (folder.join("man"), folder.join("completions"));
    fs::create_dir_all(&pages)?;
    fs::create_dir_all(&completions)?;
    write_pages(&pages, netftd::cli::netft_command(), "1")?;
    write_pages(&pages, netftd::daemon::netftd_command(), "8")?;
    fs::write(pages.join("netft.toml.5"), config_page::render_page(PAGE_SOURCE))?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut netftd::cli::netft_command(), "netft", &completions)?;
        generate_to(shell, &mut netftd::daemon::netftd_command(), "netftd", &completions)?;
    }
    Ok(())
}

/// One page for the program and for each of its commands.
fn write_pages(folder: &Path, program: clap::Command, section: &str) -> Result<(), Box<dyn Error>> {
    let mut program = program.disable_help_subcommand(true);
    program.build();
    write_page(folder, &program, section)
}

fn write_page(folder: &Path, command: &clap::Command, section: &str) -> Result<(), Box<dyn Error>> {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let page = Man::new(command.clone())
        .title(name.to_uppercase())
        .section(section)
        .source(PAGE_SOURCE)
        .manual("netft");
    let mut text = Vec::new();
    page.render(&mut text)?;
    fs::write(folder.join(format!("{name}.{section}")), text)?;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write_page(folder, below, section)?;
    }
    Ok(())
}
