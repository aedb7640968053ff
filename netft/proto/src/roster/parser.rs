//! Reader of the text form: TOML, with a place for every error.
//!
//! A document is read after its length and its characters are checked. No character in it needs an
//! escape, and no table stands inline, so that what is read nests no deeper than a list and is
//! written back as it stood.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Range,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    config::{HostName, node_name},
    ids::{NodeKey, virtual_addrs::VirtualAddrs},
    roster::{
        cluster_id::ClusterId,
        document::{
            MAX_NODE_ADDRESSES, MAX_NODES, MAX_ROSTER_LEN, NodeAddress, NodeRole, ROSTER_FORMAT,
            Roster, RosterNode,
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
/// Characters that a roster does not hold: of escapes, of strings without them, of inline tables.
const REFUSED_CHARS: &[u8] = b"\\'{}";

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
        let source = RosterSource::new(text)?;
        let fields = DeTable::parse(text).map_err(|error| {
            source.error_at(error.span().unwrap_or_default().start, error.message())
        })?;
        let mut header = RosterTable { source: &source, start: 0, fields: fields.into_inner() };
        let format = header.require("format")?;
        match format.read_number()? {
            ROSTER_FORMAT => {}
            other => {
                return Err(format.error(format!(
                    "format {other} is of another release of netft; this one reads format \
                     {ROSTER_FORMAT}"
                )));
            }
        }
        let cluster = header.require("cluster")?.parse_text(node_name)?;
        let id = header.require("id")?.parse_text(parse_key)?;
        let serial = header.require("serial")?;
        let serial = match serial.read_number()? {
            0 => return Err(serial.error("serials begin with 1")),
            serial => serial,
        };
        let mut claims = Claims::default();
        let tables = header.take_nodes()?.into_iter();
        let nodes = tables.map(|table| read_node(table, &mut claims));
        let nodes = nodes.collect::<Parsed<Vec<_>>>()?;
        Ok(Self { cluster, id: ClusterId(id.0), serial, nodes, extra: header.into_extra()? })
    }
}

/// The names and addresses that no two nodes may share.
#[derive(Default)]
struct Claims {
    names: BTreeSet<String>,
    keys: BTreeSet<NodeKey>,
    virtuals: BTreeSet<IpAddr>,
    addresses: BTreeSet<NodeAddress>,
}

fn claim<T: Ord>(
    taken: &mut BTreeSet<T>,
    value: T,
    what: &str,
    field: &RosterField<'_>,
) -> Parsed<()> {
    if taken.insert(value) { Ok(()) } else { Err(field.error(format!("{what} is used twice"))) }
}

fn read_node(mut table: RosterTable<'_>, claims: &mut Claims) -> Parsed<RosterNode> {
    let line = table.source.line_at(table.start);
    let field = table.require("name")?;
    let name = field.parse_text(node_name)?;
    // Sorted, so that one set of nodes has one text.
    if claims.names.last().is_some_and(|last| *last > name) && !claims.names.contains(&name) {
        return Err(field.error("nodes stand in the order of their names"));
    }
    claim(&mut claims.names, name.clone(), &format!("name {name:?}"), &field)?;
    let field = table.require("key")?;
    let key = field.parse_text(parse_key)?;
    claim(&mut claims.keys, key, "this key", &field)?;
    let next_key = match table.take("next_key") {
        Some(field) => {
            let key = field.parse_text(parse_key)?;
            claim(&mut claims.keys, key, "this key", &field)?;
            Some(key)
        }
        None => None,
    };
    let mut addresses = Vec::new();
    for item in table.take_list("addresses")? {
        if addresses.len() == MAX_NODE_ADDRESSES {
            return Err(item.error(format!("more than {MAX_NODE_ADDRESSES} addresses")));
        }
        let address: NodeAddress = item.parse_text(str::parse)?;
        claim(&mut claims.addresses, address.clone(), "this address", &item)?;
        addresses.push(address);
    }
    let site = match table.take("site") {
        Some(field) => field.parse_text(node_name)?,
        None => String::new(),
    };
    let mut roles = Vec::new();
    for item in table.take_list("roles")? {
        let role = item.parse_text(|word| {
            let wanted = || "a role is `member`, `witness` or `relay`".to_owned();
            NodeRole::from_word(word).ok_or_else(wanted)
        })?;
        if roles.contains(&role) {
            return Err(item.error("this role is named twice"));
        }
        roles.push(role);
    }
    let field = table.require("address")?;
    let v4 = field.parse_text(|text| {
        text.parse::<Ipv4Addr>().map_err(|_| "an IPv4 address is needed".to_owned())
    })?;
    check_virtual(v4.into(), &field)?;
    claim(&mut claims.virtuals, v4.into(), "this virtual address", &field)?;
    let field = table.require("address6")?;
    let v6 = field.parse_text(|text| {
        text.parse::<Ipv6Addr>().map_err(|_| "an IPv6 address is needed".to_owned())
    })?;
    check_virtual(v6.into(), &field)?;
    claim(&mut claims.virtuals, v6.into(), "this virtual address", &field)?;
    let addrs = VirtualAddrs { v4, v6 };
    let extra = table.into_extra()?;
    Ok(RosterNode { name, key, next_key, addresses, site, roles, addrs, extra, line })
}

fn check_virtual(addr: IpAddr, field: &RosterField<'_>) -> Parsed<()> {
    let is_broadcast = addr == IpAddr::V4(Ipv4Addr::BROADCAST);
    if addr.is_unspecified() || addr.is_loopback() || addr.is_multicast() || is_broadcast {
        return Err(field.error(format!("{addr} cannot be the address of a node")));
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
    crate::config::adapter_name(name).is_ok() && !name.contains(['"', '\'', '\\', ']', '{', '}'])
}

/// The text, and where its lines begin.
struct RosterSource<'a> {
    text: &'a str,
    line_starts: Vec<usize>,
}

impl<'a> RosterSource<'a> {
    /// Checks the characters: a document that is printed must not steer a terminal.
    fn new(text: &'a str) -> Parsed<Self> {
        let line_ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let line_starts = std::iter::once(0).chain(line_ends.map(|(at, _)| at + 1)).collect();
        let source = Self { text, line_starts };
        let is_plain = |byte: u8| byte == b'\n' || (b' '..=b'~').contains(&byte);
        let refused = |byte: u8| !is_plain(byte) || REFUSED_CHARS.contains(&byte);
        match text.bytes().position(refused) {
            None => Ok(source),
            Some(at) => Err(source.error_at(
                at,
                "only printable ASCII characters without `\\`, `'`, `{` and `}` are allowed",
            )),
        }
    }

    /// The line of a byte, from 1 on.
    fn line_at(&self, at: usize) -> u32 {
        self.line_starts.partition_point(|start| *start <= at) as u32
    }

    fn error_at(&self, at: usize, reason: impl Into<String>) -> RosterError {
        let line = self.line_at(at);
        let start = self.line_starts[line as usize - 1];
        RosterError { line, column: (at - start) as u32 + 1, reason: reason.into() }
    }
}

/// A value, and its key.
struct RosterField<'a> {
    source: &'a RosterSource<'a>,
    key: &'a str,
    value: Spanned<DeValue<'a>>,
}

impl RosterField<'_> {
    fn error(&self, reason: impl Into<String>) -> RosterError {
        self.source.error_at(self.value.span().start, reason)
    }

    fn parse_text<T>(&self, parse: impl FnOnce(&str) -> Result<T, String>) -> Parsed<T> {
        let text = self.value.get_ref().as_str();
        let text = text.ok_or_else(|| self.error("a string in quotation marks is needed"))?;
        parse(text).map_err(|reason| self.error(format!("`{}` {text:?}: {reason}", self.key)))
    }

    /// A whole number, up to what TOML can hold.
    fn read_number(&self) -> Parsed<u64> {
        let number = self.value.get_ref().as_integer().filter(|number| number.radix() == 10);
        let number = number.and_then(|number| number.as_str().parse::<i64>().ok());
        number
            .and_then(|number| u64::try_from(number).ok())
            .ok_or_else(|| self.error(format!("`{}` is a whole number", self.key)))
    }
}

/// The keys of one table that are not taken yet.
struct RosterTable<'a> {
    source: &'a RosterSource<'a>,
    /// Its first byte.
    start: usize,
    fields: DeTable<'a>,
}

impl<'a> RosterTable<'a> {
    fn take(&mut self, key: &'a str) -> Option<RosterField<'a>> {
        let value = self.fields.remove(key)?;
        Some(RosterField { source: self.source, key, value })
    }

    fn require(&mut self, key: &'a str) -> Parsed<RosterField<'a>> {
        let (source, start) = (self.source, self.start);
        self.take(key).ok_or_else(|| source.error_at(start, format!("`{key}` is missing")))
    }

    /// The strings of a list; empty when there is none.
    fn take_list(&mut self, key: &'a str) -> Parsed<Vec<RosterField<'a>>> {
        let Some(field) = self.take(key) else { return Ok(Vec::new()) };
        let wanted = || field.error(format!("`{key}` is a list of strings"));
        let items = field.value.get_ref().as_array().ok_or_else(wanted)?;
        if items.iter().any(|item| !item.get_ref().is_str()) {
            return Err(wanted());
        }
        let source = self.source;
        Ok(items.iter().map(|value| RosterField { source, key, value: value.clone() }).collect())
    }

    /// The `[[node]]` tables.
    fn take_nodes(&mut self) -> Parsed<Vec<Self>> {
        let Some(field) = self.take("node") else { return Ok(Vec::new()) };
        let wanted = |span: Range<usize>| {
            let reason = "`node` is a list of `[[node]]` tables, and there is no other table";
            self.source.error_at(span.start, reason)
        };
        let span = field.value.span();
        let DeValue::Array(items) = field.value.into_inner() else { return Err(wanted(span)) };
        if let Some(beyond) = items.get(MAX_NODES) {
            let reason = format!("more than the {MAX_NODES} nodes allowed");
            return Err(self.source.error_at(beyond.span().start, reason));
        }
        let tables = items.into_iter().map(|item| match (item.span(), item.into_inner()) {
            (span, DeValue::Table(fields)) => {
                Ok(Self { source: self.source, start: span.start, fields })
            }
            (span, _) => Err(wanted(span)),
        });
        tables.collect()
    }

    /// The keys left over, which a newer release knows, as they stand in the text.
    fn into_extra(self) -> Parsed<Vec<(String, String)>> {
        if self.fields.len() > MAX_EXTRA_KEYS {
            let reason = format!("more than {MAX_EXTRA_KEYS} unknown keys");
            return Err(self.source.error_at(self.start, reason));
        }
        let fields = self.fields.iter().map(|(key, value)| {
            let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
            if key.get_ref().is_empty() || !key.get_ref().bytes().all(is_bare) {
                let reason = "a key is letters, digits, `_` and `-`";
                return Err(self.source.error_at(key.span().start, reason));
            }
            if holds_table(value.get_ref()) {
                let name = key.get_ref();
                let reason = format!("`{name}` is a table; the only table is `[[node]]`");
                return Err(self.source.error_at(key.span().start, reason));
            }
            Ok((key.get_ref().to_string(), self.source.text[value.span()].to_owned()))
        });
        fields.collect()
    }
}

/// True for a table, and for a list of some.
fn holds_table(value: &DeValue<'_>) -> bool {
    match value {
        DeValue::Table(_) => true,
        DeValue::Array(items) => items.iter().any(|item| holds_table(item.get_ref())),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => false,
    }
}
