//! Writes an operator's overrides into the text of a config file, whose comments and layout stay.
//! Pure.

use std::net::{IpAddr, SocketAddr};

use netft::{NodeKey, config::DEFAULT_PORT, route::PeerPolicies};
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, Value, value};

/// The settings to write about one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerEdit {
    /// Its name.
    pub name: String,
    /// Its key, for a peer that the file does not name yet.
    pub key: NodeKey,
    /// Its policies, if they are to be written.
    pub policies: Option<PeerPolicies>,
    /// Its routes.
    pub routes: Vec<RouteEdit>,
}

/// The settings to write about one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteEdit {
    /// The physical address here.
    pub local: IpAddr,
    /// The physical address there.
    pub remote: SocketAddr,
    /// Its priority.
    pub priority: Option<u32>,
    /// Milliseconds between heartbeats, and heartbeats missed until it is down.
    pub timing: Option<(u32, u16)>,
}

/// The text with the edits.
///
/// # Errors
/// The text is no TOML, or has the peers in a form that cannot be edited.
pub fn edit_config_text(text: &str, edits: &[PeerEdit]) -> Result<String, String> {
    let mut document: DocumentMut = text
        .parse()
        .map_err(|error: toml_edit::TomlError| format!("it is no TOML: {}", error.message()))?;
    let port = document.get("session").and_then(|session| session.get("port"));
    let port = port.and_then(Item::as_integer).and_then(|port| port.try_into().ok());
    let port = port.unwrap_or(DEFAULT_PORT);
    for edit in edits {
        let peers = tables_of(document.as_table_mut(), "peer")?;
        let peer = match position(peers, |peer| text_of(peer, "name") == Some(edit.name.as_str())) {
            Some(place) => peers.get_mut(place),
            None => {
                let mut peer = Table::new();
                set_value(&mut peer, "name", edit.name.as_str().into());
                set_value(&mut peer, "key", edit.key.to_string().into());
                peers.push(peer);
                peers.iter_mut().last()
            }
        };
        if let Some(peer) = peer {
            edit_peer(peer, edit, port)?;
        }
    }
    Ok(document.to_string())
}

/// `port`: that of remote addresses that name none.
fn edit_peer(peer: &mut Table, edit: &PeerEdit, port: u16) -> Result<(), String> {
    if let Some(policies) = &edit.policies {
        set_value(peer, "policy", policies.default_policy().to_string().into());
        let classes = write_classes(policies);
        match classes.is_empty() {
            true => drop(peer.remove("class")),
            false => *tables_of(peer, "class")? = classes,
        }
    }
    for route in &edit.routes {
        let routes = tables_of(peer, "route")?;
        let find = |exact| position(routes, |known| is_same_route(known, route, port, exact));
        let place = find(true).or_else(|| find(false));
        let table = match place {
            Some(place) => routes.get_mut(place),
            None => {
                let mut table = Table::new();
                set_value(&mut table, "local", route.local.to_string().into());
                set_value(&mut table, "remote", route.remote.to_string().into());
                routes.push(table);
                routes.iter_mut().last()
            }
        };
        let Some(table) = table else { continue };
        if let Some(priority) = route.priority {
            set_value(table, "priority", i64::from(priority).into());
        }
        if let Some((delay, threshold)) = route.timing {
            set_value(table, "delay", i64::from(delay).into());
            set_value(table, "threshold", i64::from(threshold).into());
        }
    }
    Ok(())
}

/// The classes as the file has them.
fn write_classes(policies: &PeerPolicies) -> ArrayOfTables {
    let mut classes = ArrayOfTables::new();
    for class in policies.classes() {
        let mut table = Table::new();
        set_value(&mut table, "policy", class.policy.to_string().into());
        let texts = [
            ("protocol", class.protocol.map(|protocol| protocol.as_str().to_owned())),
            ("port", class.ports.map(|ports| ports.to_string())),
        ];
        let numbers = [
            ("dscp", class.dscp.map(|dscp| i64::from(dscp.get()))),
            ("min_size", class.min_size.map(i64::from)),
            ("max_size", class.max_size.map(i64::from)),
        ];
        for (key, text) in texts {
            text.into_iter().for_each(|text| set_value(&mut table, key, text.into()));
        }
        for (key, number) in numbers {
            number.into_iter().for_each(|number| set_value(&mut table, key, number.into()));
        }
        classes.push(table);
    }
    classes
}

/// Sets a value in the place of the former one, whose comment stays.
fn set_value(table: &mut Table, key: &str, mut new: Value) {
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            *new.decor_mut() = old.decor().clone();
            *old = new;
        }
        None => drop(table.insert(key, value(new))),
    }
}

/// The tables `[[key]]`, which are added if there are none.
fn tables_of<'t>(table: &'t mut Table, key: &str) -> Result<&'t mut ArrayOfTables, String> {
    let tables = table.entry(key).or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    tables.as_array_of_tables_mut().ok_or_else(|| {
        format!("`{key}` is an inline list there: write each as a table of its own, `[[{key}]]`")
    })
}

fn position(tables: &ArrayOfTables, is_wanted: impl Fn(&Table) -> bool) -> Option<usize> {
    tables.iter().position(is_wanted)
}

fn text_of<'t>(table: &'t Table, key: &str) -> Option<&'t str> {
    table.get(key).and_then(Item::as_str)
}

/// Returns whether a table is about this route. Not `exact`: one without a local address is, too.
fn is_same_route(table: &Table, route: &RouteEdit, port: u16, exact: bool) -> bool {
    let local = text_of(table, "local").map(|text| text.parse() == Ok(route.local));
    let remote = text_of(table, "remote").and_then(|text| parse_remote(text, port));
    local.unwrap_or(!exact) && remote == Some(route.remote)
}

/// A remote address, with or without a port.
fn parse_remote(text: &str, port: u16) -> Option<SocketAddr> {
    let with_port = |address: IpAddr| SocketAddr::new(address, port);
    text.parse().ok().or_else(|| text.parse().ok().map(with_port))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use netft::route::{
        Policy, TrafficClass,
        policy::{PortRange, Protocol},
    };

    use super::*;

    const FILE: &str = r#"# The node in room 7.
[node]
name = "a"      # as on its label
key = "/etc/netft/key"

[[peer]]
# Behind the wall.
name = "b"
key = "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM="
policy = "failover"   # asked for by the database team
addresses = [
    "10.1.0.2", # blue cable
    "10.2.0.2",
]

[[peer.route]]
remote = "10.1.0.2"
priority = 5    # the fast one

[[peer]]
name = "c"
key = "BAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ="

# The end.
"#;

    fn edit_of(name: &str) -> PeerEdit {
        let key = NodeKey([3; 32]);
        PeerEdit { name: name.to_owned(), key, policies: None, routes: Vec::new() }
    }

    fn route(network: u8) -> RouteEdit {
        RouteEdit {
            local: IpAddr::from([10, network, 0, 1]),
            remote: SocketAddr::from(([10, network, 0, 2], DEFAULT_PORT)),
            priority: Some(7777),
            timing: None,
        }
    }

    #[test]
    fn values_change_and_every_comment_stays() {
        assert_eq!(edit_config_text(FILE, &[]).unwrap(), FILE);
        let class = TrafficClass {
            protocol: Some(Protocol::Udp),
            ports: PortRange::new(5, 9),
            max_size: Some(400),
            ..TrafficClass::new(Policy::Duplicate)
        };
        let policies = PeerPolicies::new(Policy::Balance).with_classes(vec![class]).unwrap();
        let timed = RouteEdit { priority: None, timing: Some((50, 9)), ..route(2) };
        let edit =
            PeerEdit { policies: Some(policies), routes: vec![route(1), timed], ..edit_of("b") };
        let text = edit_config_text(FILE, std::slice::from_ref(&edit)).unwrap();
        let expected = FILE
            .replace("policy = \"failover\"   #", "policy = \"balance\"   #")
            .replace("priority = 5    #", "priority = 7777    #");
        let (head, tail) = expected.split_once("\n[[peer]]\nname = \"c\"").unwrap();
        for line in head.lines().chain(tail.lines()).filter(|line| !line.is_empty()) {
            assert!(text.contains(line), "{line:?} in\n{text}");
        }
        let parsed: toml::Table = toml::from_str(&text).unwrap();
        let peer = &parsed["peer"][0];
        assert_eq!(peer["policy"].as_str(), Some("balance"));
        assert_eq!(peer["class"][0]["port"].as_str(), Some("5-9"));
        assert_eq!(peer["class"][0]["max_size"].as_integer(), Some(400));
        assert_eq!(peer["route"][0]["priority"].as_integer(), Some(7777));
        assert_eq!(peer["route"][1]["local"].as_str(), Some("10.2.0.1"));
        assert_eq!(peer["route"][1]["delay"].as_integer(), Some(50));
        assert_eq!(parsed["peer"][1]["name"].as_str(), Some("c"), "the order stays");
        assert!(parsed["peer"][1].get("route").is_none());
        // Once written it is written.
        assert_eq!(edit_config_text(&text, &[edit]).unwrap(), text);
        let none = PeerEdit { policies: Some(PeerPolicies::default()), ..edit_of("b") };
        let text = edit_config_text(&text, &[none]).unwrap();
        let parsed: toml::Table = toml::from_str(&text).unwrap();
        assert!(parsed["peer"][0].get("class").is_none(), "{text}");
        assert!(text.contains("# asked for by the database team"));
    }

    #[test]
    fn a_node_of_the_roster_gets_a_table_of_its_own() {
        let edit = PeerEdit { routes: vec![route(1)], ..edit_of("d") };
        for text in ["[node]\nname = \"a\"\n", FILE, ""] {
            let text = edit_config_text(text, std::slice::from_ref(&edit)).unwrap();
            let parsed: toml::Table = toml::from_str(&text).unwrap();
            let peer = parsed["peer"].as_array().unwrap().last().unwrap();
            assert_eq!(peer["name"].as_str(), Some("d"), "{text}");
            assert_eq!(peer["key"].as_str(), Some(NodeKey([3; 32]).to_string().as_str()));
            assert_eq!(peer["route"][0]["remote"].as_str(), Some("10.1.0.2:3343"));
        }
    }

    #[test]
    fn what_cannot_be_edited_is_said() {
        let edit = [edit_of("b")];
        assert!(edit_config_text("[node", &edit).unwrap_err().contains("no TOML"));
        let error = edit_config_text("peer = [{ name = \"b\" }]\n", &edit).unwrap_err();
        assert!(error.contains("`[[peer]]`"), "{error}");
    }

    #[test]
    fn another_route_to_the_same_peer_is_another_table() {
        let table = |text: &str| text.parse::<DocumentMut>().unwrap().as_table().clone();
        let is_same =
            |text: &str, exact| is_same_route(&table(text), &route(1), DEFAULT_PORT, exact);
        assert!(is_same("local = \"10.1.0.1\"\nremote = \"10.1.0.2\"", true));
        assert!(is_same("local = \"10.1.0.1\"\nremote = \"10.1.0.2:3343\"", true));
        assert!(!is_same("local = \"10.1.0.9\"\nremote = \"10.1.0.2\"", false));
        assert!(!is_same("remote = \"10.1.0.2\"", true));
        assert!(is_same("remote = \"10.1.0.2\"", false));
        assert!(!is_same("remote = \"10.1.0.2:4000\"", false));
        assert!(!is_same("remote = \"10.2.0.2\"", false));
    }
}
