//! Text, signature, edits and the view of one node.

#![allow(clippy::unwrap_used)]

use ring::{rand::SystemRandom, signature::Ed25519KeyPair};

use super::*;
use crate::{
    config::{Config, PeerConfig, PrivateKey},
    ids::{NodeKey, virtual_addrs::VirtualAddrs},
    roster::cluster_id::ClusterId,
};

fn cluster_key() -> (PrivateKey, ClusterId) {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let key = PrivateKey(document.as_ref().to_vec().into());
    let id = ClusterId(key.public_key().unwrap().0);
    (key, id)
}

fn node_key(number: u8) -> NodeKey {
    NodeKey([number; 32])
}

fn entry(name: &str, number: u8) -> NodeEntry {
    NodeEntry {
        name: name.to_owned(),
        key: node_key(number),
        addresses: vec![format!("10.1.0.{number}:3343").parse().unwrap()],
        site: String::new(),
        roles: Vec::new(),
    }
}

fn roster(id: ClusterId, names: &[&str]) -> Roster {
    let empty = Roster::new("prod", id);
    let numbered = names.iter().zip(2u8..);
    numbered.fold(empty, |roster, (name, number)| roster.with_node(entry(name, number)).unwrap())
}

#[test]
fn the_text_is_readable_and_reads_back() {
    let mut roster = roster(ClusterId([1; 32]), &["b", "a"]);
    let change = NodeChange {
        site: Some("north".into()),
        roles: Some(vec![NodeRole::Relay, NodeRole::Member]),
        addresses: Some(vec![
            "b.example.net:3343".parse().unwrap(),
            "[fd01::2]:3343".parse().unwrap(),
            "[fe80::1%eth0]:3343".parse().unwrap(),
        ]),
        ..NodeChange::default()
    };
    roster = roster.with_change("b", change).unwrap();
    roster.nodes[1].next_key = Some(node_key(9));
    roster.nodes[1].extra.push(("weight".into(), "7".into()));
    let text = roster.to_text().0;
    let want = "\
# Nodes of cluster prod. Signed: change it with `netft cluster`, not by hand.
format = 1
cluster = \"prod\"
id = \"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\"
serial = 4

[[node]]
name = \"a\"
key = \"AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=\"
addresses = [\"10.1.0.3:3343\"]
";
    assert!(text.starts_with(want), "{text}");
    let want = "\
addresses = [\"[fd01::2]:3343\", \"b.example.net:3343\", \"[fe80::1%eth0]:3343\"]
site = \"north\"
roles = [\"member\", \"relay\"]
";
    assert!(text.contains(want), "{text}");
    let back = Roster::parse(&text).unwrap();
    assert_eq!((back.nodes[0].line, back.nodes[1].line), (7, 14));
    assert_eq!(back.without_lines(), roster);
    assert!(!roster.nodes[1].has_role(NodeRole::Witness));
    assert!(roster.nodes[0].has_role(NodeRole::Member));
}

#[test]
fn a_mistake_is_named_with_its_line_and_column() {
    let text = roster(ClusterId([1; 32]), &["a", "b"]).to_text().0;
    let mistake = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        Roster::parse(&text.replacen(from, to, 1)).unwrap_err().to_string()
    };
    let key = node_key(2).to_string();
    let mut wrong = Vec::new();
    for (from, to, want) in [
        ("format = 1", "format = 2", "line 2, column 10: format 2 is of another release of netft"),
        ("serial = 3", "serial = 0", "line 5, column 10: serials begin with 1"),
        ("serial = 3", "serial = -3", "line 5, column 10: `serial` is a whole number"),
        ("serial = 3", "serial = 0x3", "line 5, column 10: `serial` is a whole number"),
        ("serial = 3", "serial = 03", "line 5, column 10: "),
        ("serial = 3", "serial = 3 4", "line 5, column 10: "),
        ("serial = 3", "serial = \"3\"", "line 5, column 10: `serial` is a whole number"),
        ("serial = 3", "", "line 1, column 1: `serial` is missing"),
        ("cluster = \"prod\"", "cluster = \"p d\"", "line 3, column 11: `cluster` \"p d\": ' ' is"),
        ("name = \"b\"", "name = \"a\"", "line 15, column 8: name \"a\" is used twice"),
        ("name = \"b\"", "name = \"A\"", "line 15, column 8: nodes stand in the order"),
        ("name = \"b\"", "nam = \"b\"", "line 14, column 1: `name` is missing"),
        ("[[node]]", "[other]", "line 7, column 2: `other` is a table; the only table is"),
        ("[[node]]", "node = 1\n[other]", "line 15, column 3: duplicate key"),
        ("serial = 3", "serial = 3\nx = {a = 1}", "line 6, column 5: only printable ASCII"),
        (key.as_str(), "AAAA", "line 9, column 7: `key` \"AAAA\": a public key is 32 bytes"),
        ("10.1.0.3:3343", "10.1.0.2:3343", "line 17, column 14: this address is used twice"),
        ("10.1.0.3:3343", "10.1.0.3:0", "line 17, column 14: `addresses` \"10.1.0.3"),
        ("10.1.0.3:3343", "10.1.0.300:1", "line 17, column 14: `addresses` \"10.1.0.3"),
        ("10.1.0.3:3343", "\u{1b}[2J", "line 17, column 15: only printable ASCII"),
        ("address = \"169", "address = \"224", "line 11, column 11: 224."),
    ] {
        let found = mistake(from, to);
        if !found.starts_with(want) {
            wrong.push(format!("{to}: {found}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let many: String = (0..17).map(|number| format!("x{number} = 1\n")).collect();
    let found = Roster::parse(&text.replacen("\n[[node", &format!("{many}\n[[node"), 1));
    assert_eq!(found.unwrap_err().reason, "more than 16 unknown keys");
}

#[test]
fn a_roster_beyond_its_bounds_is_refused_whole() {
    let long =
        format!("{}#{}", roster(ClusterId([1; 32]), &["a"]).to_text().0, "x".repeat(262_144));
    assert!(Roster::parse(&long).unwrap_err().reason.ends_with("more than the 261120 allowed"));
    assert_eq!(
        SignedRoster::verify(long.as_bytes(), &ClusterId([1; 32])),
        Err(RosterRefusal::TooLong)
    );
    let head = roster(ClusterId([1; 32]), &[]).to_text().0;
    let found = Roster::parse(&(head + &"[[node]]\n".repeat(MAX_NODES + 1))).unwrap_err();
    assert_eq!((found.line, found.reason.as_str()), (1030, "more than the 1024 nodes allowed"));
}

/// Keys of a newer release are kept as they stand; values that could nest without end are refused.
#[test]
fn unknown_keys_are_kept_and_nest_no_deeper_than_lists() {
    let text = roster(ClusterId([1; 32]), &["a"]).to_text().0;
    let with = |more: &str| Roster::parse(&text.replacen("\n\n[[", &format!("\n{more}\n[["), 1));
    let kept = "later = [\n  \"x\", # why\n  [1, 2.5],\n]\n\"on\" = 2030-01-01 00:00:00Z";
    let read = with(kept).unwrap();
    let want = [("later", "[\n  \"x\", # why\n  [1, 2.5],\n]"), ("on", "2030-01-01 00:00:00Z")];
    let want = want.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(read.extra, want);
    let again = Roster::parse(&read.to_text().0).unwrap();
    assert_eq!(again.without_lines(), read.without_lines());
    for refused in [
        format!("a{} = 1", ".a".repeat(10_000)),
        format!("x = {}1{}", "[".repeat(10_000), "]".repeat(10_000)),
        "a.b = 1".to_owned(),
        "x = [{a = 1}]".to_owned(),
        "\"a b\" = 1".to_owned(),
        "x = \"\\u0007\"".to_owned(),
        "x = 'y'".to_owned(),
    ] {
        let start = &refused[..refused.len().min(20)];
        assert!(with(&refused).is_err(), "{start}");
    }
}

/// 1,024 nodes with two addresses each fit.
#[test]
fn the_largest_roster_fits_its_bound() {
    let (key, id) = cluster_key();
    let mut roster = Roster::new("prod", id);
    for number in 0..MAX_NODES as u32 {
        let mut bytes = [7; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        let mut node = RosterNode::new(
            format!("n{number:04}"),
            NodeKey(bytes),
            VirtualAddrs {
                v4: (0xa9fe_0100 + number).into(),
                v6: (0xfe80 << 112 | u128::from(u64::MAX - u64::from(number))).into(),
            },
        );
        for network in 1..3 {
            let [_, _, high, low] = number.to_be_bytes();
            node.addresses.push(format!("10.{network}.{high}.{low}:3343").parse().unwrap());
        }
        roster.nodes.push(node);
    }
    let signed = SignedRoster::sign(&roster, &key).unwrap();
    assert_eq!(signed.roster().nodes.len(), MAX_NODES);
    assert!(signed.text().len() <= MAX_ROSTER_LEN, "{}", signed.text().len());
}

#[test]
fn the_signature_covers_every_byte() {
    let (key, id) = cluster_key();
    let signed = SignedRoster::sign(&roster(id, &["a", "b"]), &key).unwrap();
    let bytes = signed.text().as_bytes();
    assert_eq!(SignedRoster::verify(bytes, &id).unwrap(), signed);
    assert_eq!(SignedRoster::verify_first(bytes).unwrap(), signed);
    for at in 0..bytes.len() {
        let mut changed = bytes.to_vec();
        changed[at] ^= 1;
        assert!(SignedRoster::verify(&changed, &id).is_err(), "byte {at}");
        assert!(SignedRoster::verify(&bytes[..at], &id).is_err(), "cut at {at}");
    }
    let (other_key, other) = cluster_key();
    assert_eq!(SignedRoster::verify(bytes, &other), Err(RosterRefusal::BadSignature));
    // A cluster cannot sign for another one.
    let foreign = SignedRoster::sign(&roster(id, &["a"]), &other_key);
    assert_eq!(foreign, Err(RosterRefusal::BadSignature));
    assert_eq!(SignedRoster::verify(b"", &id), Err(RosterRefusal::Unsigned));
}

#[test]
fn a_node_keeps_its_addresses_whatever_is_changed() {
    let first = roster(ClusterId([1; 32]), &["a", "b"]);
    let addrs = first.node_named("b").unwrap().addrs;
    let change = NodeChange { name: Some("z".into()), ..NodeChange::default() };
    let renamed = first.with_change("b", change).unwrap();
    assert_eq!((renamed.serial, renamed.node_named("z").unwrap().addrs), (4, addrs));
    // Again, as a join that was cut off does: no other entry, other addresses replaced.
    let again = renamed.with_node(NodeEntry { name: "z".into(), ..entry("z", 3) }).unwrap();
    assert_eq!((again.serial, again.nodes.len()), (5, 2));
    let text = |result: Result<Roster, EditError>| result.unwrap_err().to_string();
    assert!(text(again.with_node(entry("a", 9))).contains("has a node \"a\" with another key"));
    assert!(text(again.with_node(entry("c", 3))).starts_with("this key belongs to node \"z\""));
    let stolen = NodeEntry { addresses: again.nodes[0].addresses.clone(), ..entry("c", 9) };
    assert_eq!(text(again.with_node(stolen)), "address 10.1.0.2:3343 belongs to node \"a\"");
    assert!(text(again.with_node(entry("c", 0))).contains("low-order"));
    assert_eq!(text(again.without_node("b")), "the cluster has no node \"b\"");
    assert_eq!(again.without_node("a").unwrap().nodes.len(), 1);
}

#[test]
fn a_join_that_is_repeated_changes_nothing() {
    let first = roster(ClusterId([1; 32]), &["a"]);
    let addresses = entry("b", 3).addresses;
    let join = |roster: &Roster| roster.with_joiner("b", node_key(3), addresses.clone()).unwrap();
    let joined = join(&first).unwrap();
    assert_eq!((joined.serial, joined.nodes.len()), (3, 2));
    let change = NodeChange { site: Some("north".into()), ..NodeChange::default() };
    let moved = joined.with_change("b", change).unwrap();
    assert_eq!(join(&moved), None);
    let other = moved.with_joiner("b", node_key(3), Vec::new()).unwrap().unwrap();
    assert_eq!(other.node_named("b").unwrap().site, "north");
    let taken = moved.with_joiner("b", node_key(4), Vec::new());
    assert_eq!(taken, Err(EditError::NameTaken("b".into())));
}

fn config(name: &str, number: u8) -> Config {
    Config::new(name, PrivateKey(Vec::new().into()), node_key(number))
}

#[test]
fn peers_come_from_the_roster_and_blocks_add_to_them() {
    let mut roster = roster(ClusterId([1; 32]), &["a", "b", "c"]);
    let relay = NodeChange { roles: Some(vec![NodeRole::Relay]), ..NodeChange::default() };
    roster = roster.with_change("c", relay).unwrap();
    roster.nodes[0].site = "north".into();
    let mut config = config("a", 2);
    let block = PeerConfig::new("b", node_key(3)).with_address("10.2.0.3:3343".parse().unwrap());
    config.peers.push(block);
    config.peers.push(PeerConfig::new("outside", node_key(77)));
    assert_eq!(ClusterView(&roster).apply_to(&mut config), Ok(true));
    let names: Vec<_> = config.peers.iter().map(|peer| peer.name.as_str()).collect();
    assert_eq!(names, ["b", "outside", "c"]);
    let known: Vec<_> = config.peers[0].addresses.iter().map(ToString::to_string).collect();
    assert_eq!(known, ["10.2.0.3:3343", "10.1.0.3:3343"]);
    assert_eq!(config.peers.iter().map(|peer| peer.id.0).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!((config.site.as_str(), config.relay.use_relays), ("north", true));
    assert!(!config.relay.offer);
}

#[test]
fn a_node_that_the_roster_does_not_name_takes_no_peers_from_it() {
    let roster = roster(ClusterId([1; 32]), &["a", "b"]);
    let mut config = config("x", 99);
    assert_eq!(ClusterView(&roster).apply_to(&mut config), Ok(false));
    assert!(config.peers.is_empty());
}

#[test]
fn contradictions_name_both_places() {
    let roster = roster(ClusterId([1; 32]), &["a", "b"]);
    let roster = Roster::parse(&roster.to_text().0).unwrap();
    let found = |config: &Config| {
        let found = ClusterView(&roster).apply_to(&mut config.clone()).unwrap_err();
        found.into_iter().map(|one| (one.place, one.roster_line)).collect::<Vec<_>>()
    };
    assert_eq!(found(&config("x", 2)), [(ContradictionPlace::NodeName, 7)]);
    assert_eq!(found(&config("b", 99)), [(ContradictionPlace::NodeKey, 14)]);
    let mut node = config("a", 2);
    node.adapter.addrs.v4 = "10.0.0.1".parse().unwrap();
    node.peers.push(PeerConfig::new("b", node_key(9)));
    node.peers.push(PeerConfig::new("c", node_key(3)));
    let mut same = PeerConfig::new("b", node_key(3));
    same.addrs.v6 = "fd00::9".parse().unwrap();
    node.peers.push(same);
    let mut outside = PeerConfig::new("outside", node_key(77));
    outside.addrs.v4 = roster.nodes[1].addrs.v4;
    node.peers.push(outside);
    assert_eq!(
        found(&node),
        [
            (ContradictionPlace::NodeAddress, 7),
            (ContradictionPlace::PeerKey(0), 14),
            (ContradictionPlace::PeerName(1), 14),
            (ContradictionPlace::PeerAddress(2), 14),
            (ContradictionPlace::PeerAddress(3), 14),
        ]
    );
}
