//! Checks of names and prefixes, shared by the config file, the builder and the command line. An
//! error is the reason, to follow "`key` is …, not …: ".

use ipnet::IpNet;

use crate::config::settings::ExcludeRule;

/// Longest name of a node, bytes.
const MAX_NODE_NAME: usize = 64;
/// Longest interface name, bytes: IFNAMSIZ without the NUL.
const MAX_INTERFACE_NAME: usize = 15;

/// A node's name: it stands in logs, output and other nodes' configs.
pub fn node_name(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match text {
        "" => Err("it is empty".to_owned()),
        _ if text.len() > MAX_NODE_NAME => {
            Err(format!("it is {} bytes long, {MAX_NODE_NAME} are allowed", text.len()))
        }
        _ => match text.chars().find(|c| !allowed(*c)) {
            Some(c) => Err(format!("{c:?} is not allowed")),
            None => Ok(text.to_owned()),
        },
    }
}

/// An interface name the kernel takes as it is, and gives no other meaning.
pub fn adapter_name(text: &str) -> Result<String, String> {
    // The kernel numbers a name with %d in it, refuses '/' and spaces, and ':' is for aliases.
    let refused = |c: char| !c.is_ascii_graphic() || matches!(c, '/' | '%' | ':');
    match text {
        "" => Err("it is empty".to_owned()),
        "." | ".." | "lo" | "all" | "default" => Err("the kernel uses this name".to_owned()),
        _ if text.len() > MAX_INTERFACE_NAME => {
            Err(format!("it is {} bytes long, the kernel allows {MAX_INTERFACE_NAME}", text.len()))
        }
        _ => match text.chars().find(|c| refused(*c)) {
            Some(c) => Err(format!("{c:?} is not allowed")),
            None => Ok(text.to_owned()),
        },
    }
}

/// A prefix of physical or virtual addresses.
pub fn network_prefix(text: &str) -> Result<IpNet, String> {
    let prefix = text.parse().map_err(|_| "an address, `/`, and a length are needed".to_owned())?;
    check_prefix(prefix).map(|()| prefix)
}

/// Refuses a prefix of length 0 and one with host bits.
pub(super) fn check_prefix(prefix: IpNet) -> Result<(), String> {
    if prefix.prefix_len() == 0 {
        Err("every address is inside this one".to_owned())
    } else if prefix.trunc() == prefix {
        Ok(())
    } else {
        Err(format!("bits are set behind the prefix: did you mean `{}`?", prefix.trunc()))
    }
}

/// An exclude rule: an interface name, with or without `*` at its end, or a prefix.
pub fn exclude_rule(text: &str) -> Result<ExcludeRule, String> {
    if text.contains('/') {
        return network_prefix(text).map(ExcludeRule::Prefix);
    }
    let name = text.strip_suffix('*').unwrap_or(text);
    if name.contains('*') {
        return Err("`*` may only stand at the end".to_owned());
    }
    adapter_name(if name.is_empty() { text } else { name })?;
    Ok(ExcludeRule::Interface(text.to_owned()))
}
