//! Stacking of interfaces: two routes over one underlying link fail together. Pure.

use netft::api::host::StackedLink;

/// Deepest stack of interfaces; deeper is a loop.
const MAX_STACK_DEPTH: usize = 8;

/// Every link under the interface `index`, itself first: parents, and members of bridges and
/// bonds.
pub fn underlying_links(links: &[StackedLink], index: u32) -> Vec<u32> {
    let mut base = vec![index];
    let mut layer = vec![index];
    for _ in 0..MAX_STACK_DEPTH {
        let below = |of: &u32| {
            let parent = links.iter().find(|link| link.interface.index == *of);
            let members = links.iter().filter(|link| link.master == Some(*of));
            let members: Vec<_> = members.map(|link| link.interface.index).collect();
            parent.and_then(|link| link.parent).into_iter().chain(members).collect::<Vec<_>>()
        };
        layer = layer.iter().flat_map(below).filter(|index| !base.contains(index)).collect();
        layer.dedup();
        if layer.is_empty() {
            break;
        }
        base.extend(&layer);
    }
    base
}

/// The first link both interfaces share.
pub fn shared_link(links: &[StackedLink], one: u32, other: u32) -> Option<&StackedLink> {
    let others = underlying_links(links, other);
    let common = underlying_links(links, one).into_iter().find(|index| others.contains(index))?;
    links.iter().find(|link| link.interface.index == common)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use netft::topology::Interface;

    use super::*;

    fn link(index: u32, name: &str, parent: Option<u32>, master: Option<u32>) -> StackedLink {
        let interface = Interface::healthy(index, name);
        StackedLink { interface, parent, master, ethernet: true, queue_len: 1000 }
    }

    #[test]
    fn shared_links_are_found_through_vlans_bonds_and_bridges() {
        let links = [
            link(1, "eth0", None, Some(5)),
            link(2, "eth1", None, Some(5)),
            link(3, "eth2", None, Some(6)),
            link(4, "eth3", None, None),
            link(5, "bond0", None, None),
            link(6, "br0", None, None),
            link(7, "bond0.10", Some(5), None),
            link(8, "bond0.20", Some(5), None),
            link(9, "eth2.7", Some(3), None),
            link(10, "eth3.7", Some(4), None),
        ];
        let shared =
            |one, other| shared_link(&links, one, other).map(|l| l.interface.name.as_str());
        assert_eq!(shared(7, 8), Some("bond0"));
        assert_eq!(shared(7, 5), Some("bond0"));
        assert_eq!(shared(6, 9), Some("eth2"));
        assert_eq!(shared(4, 4), Some("eth3"));
        assert_eq!(shared(7, 10), None);
        assert_eq!(shared(9, 10), None);
    }

    #[test]
    fn a_loop_of_interfaces_ends() {
        let links = [link(1, "a", Some(2), Some(2)), link(2, "b", Some(1), Some(1))];
        assert_eq!(underlying_links(&links, 1), [1, 2]);
    }
}
