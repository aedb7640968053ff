//! The group whose members may query the daemon.

use std::fs;

/// Number of a group of this machine. A group that is missing is logged: the daemon works without.
pub(super) fn find_group(name: &str) -> Option<u32> {
    let listed = fs::read_to_string("/etc/group");
    let found = listed.as_ref().ok().and_then(|listed| group_id(listed, name));
    match (&listed, found) {
        (Err(error), _) => tracing::warn!("cannot read /etc/group: {error}"),
        (Ok(_), None) => tracing::warn!(
            "there is no group {name}: only root can query this daemon (`groupadd --system {name}`)"
        ),
        (Ok(_), Some(_)) => {}
    }
    found
}

/// The number of `name` in the text of a group file (group(5)).
fn group_id(listed: &str, name: &str) -> Option<u32> {
    listed.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_whole_name() {
        let listed = "root:x:0:\nnetft2:x:7:\nnetft:x:995:alice,bob\nbad:x:no:\n";
        assert_eq!(group_id(listed, "netft"), Some(995));
        assert_eq!(group_id(listed, "root"), Some(0));
        for absent in ["net", "alice", "bad", ""] {
            assert_eq!(group_id(listed, absent), None, "{absent}");
        }
    }
}
