//! Reader of the text form: the part of TOML that it is written in. One key a line; strings
//! without escapes, whole numbers, lists of strings on one line. Every error has its place.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::{
    config::{HostName, node_name},
    ids::{NodeKey, virtual_addrs::VirtualAddrs},
    roster::{
        cluster_id::ClusterId,
        document::{
            FORMAT, MAX_NODE_ADDRESSES, MAX_NODES, MAX_ROSTER_LEN, NodeAddress, NodeRole, Roster,
            RosterNode,
        },
    },
};

/// A mistake in a roster, and its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {reason}")]
pub struct RosterError {
    /// Its line, from 1 on.
    pub line: u32,
    /// Its column, in bytes, from 1 on.
    pub column: u32,
    /// The mistake and the remedy.
    pub reason: String,
}

/// Longest name of a host, bytes (RFC 1035 section 2.3.4).
const MAX_HOST_LEN: usize = 253;
/// Keys of a table that this release does not know, at most.
const MAX_EXTRA_KEYS: usize = 16;

type Parsed<T> = Result<T, RosterError>;

impl Roster {
    /// Reads the text of a roster, without its signature.
    ///
    /// # Errors
    /// The first mistake.
    pub fn parse(text: &str) -> Parsed<Self> {
        if text.len() > MAX_ROSTER_LEN {
            let reason = format!("{} bytes, more than the {MAX_ROSTER_LEN} allowed", text.len());
            return Err(RosterError { line: 1, column: 1, reason });
        }
        let mut tables = split_tables(text)?;
        let mut header = tables.remove(0);
        header.read_number("format").and_then(|(format, place)| match format {
            FORMAT => Ok(()),
            _ => Err(place.error(format!(
                "format {format} is of another release of netft; this one reads format {FORMAT}"
            ))),
        })?;
        let (cluster, _) = header.read_text("cluster", node_name)?;
        let (id, _) = header.read_text("id", parse_key)?;
        let (serial, place) = header.read_number("serial")?;
        if serial == 0 {
            return Err(place.error("serials begin with 1"));
        }
        let mut claims = Claims::default();
        let nodes = tables.into_iter().map(|table| read_node(table, &mut claims));
        let nodes = nodes.collect::<Parsed<Vec<_>>>()?;
        Ok(Self { cluster, id: ClusterId(id.0), serial, nodes, extra: header.into_extra()? })
    }
}

/// The names and addresses that no two nodes may share.
#[derive(Default)]
struct Claims<'a> {
    names: BTreeSet<String>,
    keys: BTreeSet<NodeKey>,
    virtuals: BTreeSet<IpAddr>,
    addresses: BTreeSet<NodeAddress>,
    last_name: Option<&'a str>,
}

fn claim<T: Ord>(taken: &mut BTreeSet<T>, value: T, what: &str, place: Place<'_>) -> Parsed<()> {
    if taken.insert(value) { Ok(()) } else { Err(place.error(format!("{what} is used twice"))) }
}

fn read_node<'a>(mut table: Table<'a>, claims: &mut Claims<'a>) -> Parsed<RosterNode> {
    let line = table.start.line;
    let (name, place) = table.read_text("name", node_name)?;
    claim(&mut claims.names, name.clone(), &format!("name {name:?}"), place)?;
    // Sorted, so that one set of nodes has one text.
    let written = place.text;
    if claims.last_name.is_some_and(|last| last > written) {
        return Err(place.error("nodes stand in the order of their names"));
    }
    claims.last_name = Some(written);
    let (key, place) = table.read_text("key", parse_key)?;
    claim(&mut claims.keys, key, "this key", place)?;
    let next_key = match table.take("next_key") {
        Some(field) => {
            let (key, place) = field.parse_text(parse_key)?;
            claim(&mut claims.keys, key, "this key", place)?;
            Some(key)
        }
        None => None,
    };
    let mut addresses = Vec::new();
    for (text, place) in table.read_list("addresses")? {
        if addresses.len() == MAX_NODE_ADDRESSES {
            return Err(place.error(format!("more than {MAX_NODE_ADDRESSES} addresses")));
        }
        let address: NodeAddress = text.parse().map_err(|reason| place.error(reason))?;
        claim(&mut claims.addresses, address.clone(), "this address", place)?;
        addresses.push(address);
    }
    let site = match table.take("site") {
        Some(field) => field.parse_text(node_name)?.0,
        None => String::new(),
    };
    let mut roles = Vec::new();
    for (word, place) in table.read_list("roles")? {
        // A role of a newer release gives this one nothing to do; it is kept for those that know.
        let Some(role) = NodeRole::from_word(word) else {
            return Err(place.error("a role is `member`, `witness` or `relay`"));
        };
        if roles.contains(&role) {
            return Err(place.error("this role is named twice"));
        }
        roles.push(role);
    }
    let (v4, place) = table.read_text("address", |text| {
        text.parse::<Ipv4Addr>().map_err(|_| "an IPv4 address is needed".to_owned())
    })?;
    check_virtual(v4.into(), place)?;
    claim(&mut claims.virtuals, v4.into(), "this virtual address", place)?;
    let (v6, place) = table.read_text("address6", |text| {
        text.parse::<Ipv6Addr>().map_err(|_| "an IPv6 address is needed".to_owned())
    })?;
    check_virtual(v6.into(), place)?;
    claim(&mut claims.virtuals, v6.into(), "this virtual address", place)?;
    let addrs = VirtualAddrs { v4, v6 };
    let extra = table.into_extra()?;
    Ok(RosterNode { name, key, next_key, addresses, site, roles, addrs, extra, line })
}

fn check_virtual(addr: IpAddr, place: Place<'_>) -> Parsed<()> {
    let is_broadcast = addr == IpAddr::V4(Ipv4Addr::BROADCAST);
    if addr.is_unspecified() || addr.is_loopback() || addr.is_multicast() || is_broadcast {
        return Err(place.error(format!("{addr} cannot be the address of a node")));
    }
    Ok(())
}

fn parse_key(text: &str) -> Result<NodeKey, String> {
    text.parse::<NodeKey>().map_err(|error| error.to_string())
}

impl std::str::FromStr for NodeAddress {
    type Err = String;

    /// An address or a name, each with its port.
    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || {
            "an address such as `10.1.0.2:3343` or `[fd01::2]:3343`, or a name such as \
             `b.example.net:3343`, is needed"
                .to_owned()
        };
        if let Ok(addr) = text.parse::<SocketAddr>() {
            let ip = addr.ip();
            let is_usable = addr.port() != 0 && !ip.is_unspecified() && !ip.is_multicast();
            let has_scope = matches!(addr, SocketAddr::V6(v6) if v6.scope_id() != 0);
            return if is_usable && !has_scope { Ok(Self::Addr(addr)) } else { Err(wanted()) };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(wanted)?;
        let port: u16 = port.parse().ok().filter(|port| *port != 0).ok_or_else(wanted)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let host = HostName { host: host.to_owned(), port };
        let is_name = !host.host.is_empty()
            && host.host.len() <= MAX_HOST_LEN
            && host.host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
            && !host.host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        if is_name || host.link_local().is_some_and(|(_, interface)| is_interface(interface)) {
            Ok(Self::Host(host))
        } else {
            Err(wanted())
        }
    }
}

fn is_interface(name: &str) -> bool {
    crate::config::adapter_name(name).is_ok() && !name.contains(['"', '\\', ']'])
}

/// A place in the text.
#[derive(Clone, Copy)]
struct Place<'a> {
    line: u32,
    column: u32,
    /// The text that stands there.
    text: &'a str,
}

impl Place<'_> {
    fn error(self, reason: impl Into<String>) -> RosterError {
        RosterError { line: self.line, column: self.column, reason: reason.into() }
    }
}

/// One `key = value`.
struct Field<'a> {
    key: Place<'a>,
    value: Place<'a>,
}

impl<'a> Field<'a> {
    fn parse_text<T>(&self, parse: impl Fn(&str) -> Result<T, String>) -> Parsed<(T, Place<'a>)> {
        let wanted = || self.value.error("a string in quotation marks is needed");
        let (text, rest) = split_string(self.value.text).ok_or_else(wanted)?;
        if !rest.is_empty() {
            return Err(wanted());
        }
        let place = Place { text, column: self.value.column + 1, ..self.value };
        let value = parse(text)
            .map_err(|reason| place.error(format!("`{}` {text:?}: {reason}", self.key.text)))?;
        Ok((value, place))
    }
}

/// One table: its lines up to the next one.
struct Table<'a> {
    start: Place<'a>,
    fields: Vec<Field<'a>>,
}

impl<'a> Table<'a> {
    fn take(&mut self, key: &str) -> Option<Field<'a>> {
        let at = self.fields.iter().position(|field| field.key.text == key)?;
        Some(self.fields.remove(at))
    }

    fn require(&mut self, key: &str) -> Parsed<Field<'a>> {
        self.take(key).ok_or_else(|| self.start.error(format!("`{key}` is missing")))
    }

    fn read_text<T>(
        &mut self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Parsed<(T, Place<'a>)> {
        self.require(key)?.parse_text(parse)
    }

    fn read_number(&mut self, key: &str) -> Parsed<(u64, Place<'a>)> {
        let place = self.require(key)?.value;
        parse_number(place.text)
            .map(|number| (number, place))
            .ok_or_else(|| place.error(format!("`{key}` is a whole number")))
    }

    /// The strings of a list; empty when there is none.
    fn read_list(&mut self, key: &str) -> Parsed<Vec<(&'a str, Place<'a>)>> {
        let Some(field) = self.take(key) else { return Ok(Vec::new()) };
        split_list(field.value)
            .ok_or_else(|| field.value.error(format!("`{key}` is a list of strings")))
    }

    /// The keys left over, which a newer release knows.
    fn into_extra(self) -> Parsed<Vec<(String, String)>> {
        if let Some(beyond) = self.fields.get(MAX_EXTRA_KEYS) {
            return Err(beyond.key.error(format!("more than {MAX_EXTRA_KEYS} unknown keys")));
        }
        let fields = self.fields.into_iter();
        Ok(fields.map(|it| (it.key.text.to_owned(), it.value.text.to_owned())).collect())
    }
}

/// A number as TOML has it, up to what TOML can hold.
fn parse_number(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let is_padded = text.len() > 1 && text.starts_with('0');
    let number: u64 = text.parse().ok().filter(|_| is_plain && !is_padded)?;
    (number <= i64::MAX as u64).then_some(number)
}

/// A string at the start of `text`, without its quotation marks, and what follows.
fn split_string(text: &str) -> Option<(&str, &str)> {
    let inside = text.strip_prefix('"')?;
    let end = inside.find('"')?;
    let (inside, rest) = (&inside[..end], &inside[end + 1..]);
    let is_plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'\\';
    inside.bytes().all(is_plain).then_some((inside, rest))
}

fn split_list(place: Place<'_>) -> Option<Vec<(&str, Place<'_>)>> {
    let mut rest = place.text.strip_prefix('[')?.trim_start_matches(' ');
    let mut items = Vec::new();
    while rest != "]" {
        let column = place.column + (place.text.len() - rest.len()) as u32;
        let (item, after) = split_string(rest)?;
        items.push((item, Place { text: item, column: column + 1, ..place }));
        rest = after.trim_start_matches(' ');
        match rest.strip_prefix(',') {
            Some(after) => rest = after.trim_start_matches(' '),
            None if rest == "]" => {}
            None => return None,
        }
    }
    Some(items)
}

/// The end of a line's value: before a comment outside strings.
fn without_comment(text: &str) -> &str {
    let mut in_string = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' => in_string = !in_string,
            b'#' if !in_string => return text[..at].trim_end_matches(' '),
            _ => {}
        }
    }
    text.trim_end_matches(' ')
}

/// The tables, that before the first header first.
fn split_tables(text: &str) -> Parsed<Vec<Table<'_>>> {
    let start = Place { line: 1, column: 1, text: "" };
    let mut tables = vec![Table { start, fields: Vec::new() }];
    for (line, number) in text.split('\n').zip(1..) {
        let place = Place { line: number, column: 1, text: line };
        let foreign = |byte: u8| !(b' '..=b'~').contains(&byte);
        if let Some(at) = line.bytes().position(foreign) {
            let place = Place { column: at as u32 + 1, ..place };
            return Err(place.error("only printable ASCII characters are allowed"));
        }
        let content = without_comment(line);
        if content.is_empty() {
            continue;
        }
        if content.starts_with('[') {
            if content != "[[node]]" {
                return Err(place.error("the only table is `[[node]]`"));
            }
            if tables.len() > MAX_NODES {
                return Err(place.error(format!("more than the {MAX_NODES} nodes allowed")));
            }
            tables.push(Table { start: place, fields: Vec::new() });
            continue;
        }
        let table = tables.last_mut().expect("the first table is always there");
        let field = split_field(Place { text: content, ..place })?;
        if table.fields.iter().any(|other| other.key.text == field.key.text) {
            return Err(place.error(format!("`{}` stands here twice", field.key.text)));
        }
        table.fields.push(field);
    }
    Ok(tables)
}

fn split_field(line: Place<'_>) -> Parsed<Field<'_>> {
    let wanted = || line.error("`key = value`, `[[node]]` or a comment is needed");
    let (key, value) = line.text.split_once('=').ok_or_else(wanted)?;
    let key = key.trim_end_matches(' ');
    let is_key = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if key.is_empty() || !key.bytes().all(is_key) {
        return Err(wanted());
    }
    let value = value.trim_start_matches(' ');
    let column = (line.text.len() - value.len()) as u32 + 1;
    let value = Place { text: value, column, ..line };
    let is_value = parse_number(value.text).is_some()
        || split_string(value.text).is_some_and(|(_, rest)| rest.is_empty())
        || split_list(value).is_some()
        || matches!(value.text, "true" | "false");
    if !is_value {
        return Err(value.error("a string, a whole number or a list of strings is needed"));
    }
    Ok(Field { key: Place { text: key, ..line }, value })
}
