//! Names for the peers' virtual addresses: a marked block in `/etc/hosts`, for `ssh b.netft` and
//! readable logs (U18). Pure; [`mod@file`] writes the file.
//!
//! Every name ends in [`HOST_NAME_SUFFIX`], this node's own too, and none is the machine's host
//! name: that one must keep leading to a real address (U1).

pub mod file;

use std::{
    fmt::Write,
    net::{Ipv4Addr, Ipv6Addr},
};

use crate::control::schema::{DaemonStatus, HostEntry, PeerList};

/// Suffix of every node's host name.
pub const HOST_NAME_SUFFIX: &str = ".netft";

/// The nodes a daemon knows, this one first.
pub fn host_entries(status: &DaemonStatus, peers: &PeerList) -> Vec<HostEntry> {
    let own = host_entry(&status.node.name, status.adapter.v4, status.adapter.v6);
    let others = peers.peers.iter().map(|peer| host_entry(&peer.name, peer.v4, peer.v6));
    std::iter::once(own).chain(others).collect()
}

/// A node's name and addresses.
pub fn host_entry(name: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> HostEntry {
    HostEntry { name: format!("{name}{HOST_NAME_SUFFIX}"), v4, v6 }
}

/// The file is left unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// A block without an end.
    #[error("line {0}: a netft block does not end: add its END line, or delete the block")]
    NoEnd(usize),
    /// An end without a beginning.
    #[error("line {0}: END line without a netft block: delete it")]
    NoBegin(usize),
    /// A second block.
    #[error("line {0}: a second netft block of this adapter: delete one of them")]
    Twice(usize),
}

/// The block of one adapter.
#[derive(Clone, Debug)]
pub struct HostsBlock {
    begin: String,
    end: String,
}

impl HostsBlock {
    /// The block of the adapter called `adapter`.
    pub fn for_adapter(adapter: &str) -> Self {
        Self { begin: format!("# BEGIN netft {adapter}"), end: format!("# END netft {adapter}") }
    }

    /// The block for `hosts`, on a machine called `machine`.
    pub fn render_block(&self, hosts: &[HostEntry], machine: &str) -> String {
        let mut text = format!("{}\n# written by netft; edit outside of it\n", self.begin);
        let allowed = |host: &&HostEntry| !host.name.eq_ignore_ascii_case(machine);
        for host in hosts.iter().filter(allowed) {
            let _ = writeln!(text, "{}\t{}", host.v4, host.name);
            // No hosts file can name the interface that a link-local address needs: the kernel
            // would refuse every connect to it (EINVAL).
            if !host.v6.is_unicast_link_local() {
                let _ = writeln!(text, "{}\t{}", host.v6, host.name);
            }
        }
        text + &self.end + "\n"
    }

    /// `file` with `block` in place of the former one, or at its end; without any when it is empty.
    ///
    /// # Errors
    /// The former block is damaged.
    pub fn replace_in(&self, file: &[u8], block: &str) -> Result<Vec<u8>, BlockError> {
        let lines: Vec<&[u8]> = file.split_inclusive(|byte| *byte == b'\n').collect();
        let Some((begin, end)) = self.find_block(&lines)? else {
            let mut text = file.to_vec();
            if !block.is_empty() && !text.is_empty() && !text.ends_with(b"\n") {
                text.push(b'\n');
            }
            text.extend(block.as_bytes());
            return Ok(text);
        };
        let (before, after) = (&lines[..begin], &lines[end + 1..]);
        Ok([&before.concat(), block.as_bytes(), &after.concat()].concat())
    }

    /// Indexes of the first and last line of the block.
    fn find_block(&self, lines: &[&[u8]]) -> Result<Option<(usize, usize)>, BlockError> {
        let mut open = None;
        let mut found = None;
        for (place, line) in lines.iter().enumerate() {
            let line = line.trim_ascii_end();
            if line == self.begin.as_bytes() {
                match (open, found) {
                    (Some(begin), _) => return Err(BlockError::NoEnd(begin + 1)),
                    (None, Some(_)) => return Err(BlockError::Twice(place + 1)),
                    (None, None) => open = Some(place),
                }
            } else if line == self.end.as_bytes() {
                let begin = open.take().ok_or(BlockError::NoBegin(place + 1))?;
                found = Some((begin, place));
            }
        }
        match open {
            Some(begin) => Err(BlockError::NoEnd(begin + 1)),
            None => Ok(found),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn block(names: &[&str], machine: &str) -> String {
        let hosts: Vec<_> = names
            .iter()
            .map(|name| host_entry(name, Ipv4Addr::new(169, 254, 1, 2), "fe80::2".parse().unwrap()))
            .collect();
        HostsBlock::for_adapter("netft0").render_block(&hosts, machine)
    }

    fn put(file: &str, block: &str) -> Result<String, BlockError> {
        let put = HostsBlock::for_adapter("netft0").replace_in(file.as_bytes(), block);
        put.map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn u18_a_name_leads_to_every_address_that_needs_no_interface() {
        let expected = "# BEGIN netft netft0\n# written by netft; edit outside of it\n\
                        169.254.1.2\tb.netft\n# END netft netft0\n";
        assert_eq!(block(&["b"], "b"), expected);
        let routable = host_entry("b", Ipv4Addr::new(10, 9, 0, 2), "fd00:9::2".parse().unwrap());
        let text = HostsBlock::for_adapter("netft0").render_block(&[routable], "");
        assert!(text.contains("10.9.0.2\tb.netft\nfd00:9::2\tb.netft\n"), "{text}");
    }

    #[test]
    fn u1_the_machines_own_name_is_never_given() {
        assert!(!block(&["web", "b"], "web").contains("\tweb\n"));
        let text = block(&["web", "b"], "WEB.netft");
        assert!(!text.contains("web") && text.contains("b.netft"), "{text}");
    }

    #[test]
    fn a_block_is_added_replaced_in_place_and_removed() {
        let (one, two) = (block(&["b"], ""), block(&["b", "c"], ""));
        let first = put("127.0.0.1 localhost", &one).unwrap();
        assert_eq!(first, format!("127.0.0.1 localhost\n{one}"));
        let edited = format!("{first}10.0.0.9 nas\n");
        let second = put(&edited, &two).unwrap();
        assert_eq!(second, format!("127.0.0.1 localhost\n{two}10.0.0.9 nas\n"));
        assert_eq!(put(&second, &two).unwrap(), second);
        assert_eq!(put(&second, "").unwrap(), "127.0.0.1 localhost\n10.0.0.9 nas\n");
        assert_eq!(put("", &one).unwrap(), one);
        assert_eq!(put("x", "").unwrap(), "x");
    }

    #[test]
    fn bytes_that_are_no_text_and_other_adapters_blocks_stay() {
        let other = HostsBlock::for_adapter("netft1").render_block(&[], "");
        let file = [b"# caf\xe9\r\n", other.as_bytes()].concat();
        let ours = block(&["b"], "");
        let both = HostsBlock::for_adapter("netft0").replace_in(&file, &ours).unwrap();
        assert_eq!(both, [&file, ours.as_bytes()].concat());
        assert_eq!(HostsBlock::for_adapter("netft0").replace_in(&both, "").unwrap(), file);
    }

    #[test]
    fn a_damaged_block_is_refused_with_its_line() {
        let (begin, end) = ("# BEGIN netft netft0\n", "# END netft netft0\n");
        let cases = [
            (format!("x\n{begin}y\n"), BlockError::NoEnd(2)),
            (format!("{begin}{begin}{end}"), BlockError::NoEnd(1)),
            (format!("x\n{end}"), BlockError::NoBegin(2)),
            (format!("{begin}{end}{end}"), BlockError::NoBegin(3)),
            (format!("{begin}{end}{begin}{end}"), BlockError::Twice(3)),
        ];
        for (file, broken) in cases {
            assert_eq!(put(&file, &block(&["b"], "")), Err(broken), "{file}");
            assert_eq!(put(&file, ""), Err(broken), "{file}");
        }
    }
}
