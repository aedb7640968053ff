//! Evaluates this node's packet filter, from `nft -j list ruleset`, for netft's datagrams. Pure.
//!
//! A datagram traverses every base chain of its hook, with jumps and sets, as in the kernel. An
//! expression that is not supported makes the outcome unsure, never blocked.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde_json::Value;

/// Deepest nesting of jumps (the kernel: 16).
const MAX_JUMP_DEPTH: usize = 16;

/// Protocol of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterProtocol {
    /// UDP.
    Udp,
    /// TCP, the first segment of a connection.
    Tcp,
    /// An ICMP or ICMPv6 echo request; ports are of no meaning.
    Echo,
}

impl FilterProtocol {
    /// The name in rules, and the number of the protocol, over IPv4 or IPv6.
    fn identifiers(self, four: bool) -> (&'static str, u64) {
        match (self, four) {
            (Self::Udp, _) => ("udp", 17),
            (Self::Tcp, _) => ("tcp", 6),
            (Self::Echo, true) => ("icmp", 1),
            (Self::Echo, false) => ("ipv6-icmp", 58),
        }
    }
}

/// A packet at one hook.
#[derive(Clone, Copy, Debug)]
pub struct FilterDatagram<'a> {
    /// Protocol.
    pub protocol: FilterProtocol,
    /// `input` or `output`.
    pub hook: &'a str,
    /// Input or output interface.
    pub interface: &'a str,
    /// Source.
    pub source: SocketAddr,
    /// Destination.
    pub destination: SocketAddr,
    /// Connection tracking state is `established`.
    pub established: bool,
}

/// Outcome for a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterOutcome {
    /// It passes.
    Passes,
    /// A rule that is not supported decides.
    Unsure(BlockingChain),
    /// It is dropped or rejected.
    Blocked(BlockingChain),
}

/// The base chain that blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockingChain {
    /// `ip`, `ip6` or `inet`.
    pub family: String,
    /// The table.
    pub table: String,
    /// The base chain, where an accept rule is needed.
    pub chain: String,
    /// The policy or the rule that blocks.
    pub why: String,
    /// The firewalld zone, if it is firewalld's chain.
    pub zone: Option<String>,
}

/// Verdict of a rule or a chain.
enum RuleOutcome {
    Accept,
    Drop(String, Option<String>),
    Return,
}

/// Result of a match; `None` if it is not supported.
type MatchResult = Option<bool>;

/// Evaluates the ruleset for a datagram.
pub fn filter_outcome(ruleset: &Value, datagram: FilterDatagram<'_>) -> FilterOutcome {
    let walk = RulesetWalk { all: ruleset_items(ruleset), datagram };
    let family = if datagram.source.is_ipv4() { "ip" } else { "ip6" };
    let mut unsure = None;
    for chain in walk.all.iter().filter_map(|item| item.get("chain")) {
        let text = |key| chain.get(key).and_then(Value::as_str).unwrap_or_default();
        let ours = [family, "inet"].contains(&text("family")) && text("hook") == datagram.hook;
        if !ours || text("type") != "filter" {
            continue;
        }
        let mut maybe = false;
        let at = (text("family"), text("table"));
        let (why, zone) = match walk.walk_chain(at, text("name"), 0, &mut maybe) {
            Some(RuleOutcome::Accept) => continue,
            Some(RuleOutcome::Drop(why, zone)) => (why, zone),
            Some(RuleOutcome::Return) | None if text("policy") == "drop" => {
                (format!("policy drop of chain {}", text("name")), None)
            }
            Some(RuleOutcome::Return) | None => continue,
        };
        let place = BlockingChain {
            family: at.0.to_owned(),
            table: at.1.to_owned(),
            chain: text("name").to_owned(),
            why,
            zone,
        };
        if !maybe {
            return FilterOutcome::Blocked(place);
        }
        unsure.get_or_insert(place);
    }
    unsure.map_or(FilterOutcome::Passes, FilterOutcome::Unsure)
}

fn ruleset_items(ruleset: &Value) -> &[Value] {
    ruleset.get("nftables").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

struct RulesetWalk<'a> {
    all: &'a [Value],
    datagram: FilterDatagram<'a>,
}

impl RulesetWalk<'_> {
    /// Verdict of a chain; `None` if it ends without one. `maybe` becomes true if an unsupported
    /// rule might have accepted.
    fn walk_chain(
        &self,
        at: (&str, &str),
        name: &str,
        depth: usize,
        maybe: &mut bool,
    ) -> Option<RuleOutcome> {
        if depth > MAX_JUMP_DEPTH {
            return None;
        }
        let of = |rule: &&Value| {
            let is = |key, wanted: &str| rule.get(key).and_then(Value::as_str) == Some(wanted);
            is("family", at.0) && is("table", at.1) && is("chain", name)
        };
        for rule in self.all.iter().filter_map(|item| item.get("rule")).filter(of) {
            match self.walk_rule(at, name, rule, depth, maybe) {
                None => {}
                Some(RuleOutcome::Return) => return None,
                Some(step) => return Some(step),
            }
        }
        None
    }

    fn walk_rule(
        &self,
        at: (&str, &str),
        chain: &str,
        rule: &Value,
        depth: usize,
        maybe: &mut bool,
    ) -> Option<RuleOutcome> {
        let mut sure = true;
        for part in rule.get("expr").and_then(Value::as_array)? {
            let (kind, value) = part.as_object()?.iter().next()?;
            match kind.as_str() {
                "match" => match self.match_expression(at, value) {
                    Some(true) => {}
                    Some(false) => return None,
                    None => sure = false,
                },
                "counter" | "log" | "comment" | "mangle" | "ct count" => {}
                "accept" if sure => return Some(RuleOutcome::Accept),
                "accept" => *maybe = true,
                "drop" | "reject" if sure => {
                    let zone = chain.strip_prefix("filter_IN_").map(|rest| {
                        let end = ["_pre", "_log", "_deny", "_allow", "_post"]
                            .iter()
                            .find_map(|end| rest.strip_suffix(end));
                        end.unwrap_or(rest).to_owned()
                    });
                    let handle = rule.get("handle").and_then(Value::as_u64).unwrap_or_default();
                    let why = format!("{kind} in chain {chain} (rule handle {handle})");
                    return Some(RuleOutcome::Drop(why, zone));
                }
                "return" if sure => return Some(RuleOutcome::Return),
                "jump" | "goto" => {
                    let target = value.get("target").and_then(Value::as_str)?;
                    let mut inside = false;
                    let step = self.walk_chain(at, target, depth + 1, &mut inside);
                    *maybe |= inside;
                    match step {
                        Some(RuleOutcome::Accept) if !sure => *maybe = true,
                        Some(step) if sure => return Some(step),
                        None if sure && kind == "goto" => return Some(RuleOutcome::Return),
                        _ => {}
                    }
                }
                // A rate limit or an unsupported match: what follows applies sometimes. A verdict
                // map may hold any verdict.
                "vmap" => *maybe = true,
                _ => sure = false,
            }
        }
        None
    }

    fn match_expression(&self, at: (&str, &str), value: &Value) -> MatchResult {
        let (left, right) = (value.get("left")?, value.get("right")?);
        let equal = self.match_operands(at, left, right)?;
        match value.get("op").and_then(Value::as_str)? {
            "==" | "in" => Some(equal),
            "!=" => Some(!equal),
            _ => None,
        }
    }

    fn match_operands(&self, at: (&str, &str), left: &Value, right: &Value) -> MatchResult {
        let FilterDatagram { hook, interface, source, destination, established, .. } =
            self.datagram;
        let protocol = self.datagram.protocol;
        let four = source.is_ipv4();
        let text = |key: &str, of: &str| left.get(key)?.get(of)?.as_str();
        if let Some(key) = text("meta", "key") {
            return match key {
                "l4proto" => {
                    self.set_contains(at, right, &|v| Some(is_protocol(protocol, four, v)))
                }
                "nfproto" => {
                    let own = if four { "ipv4" } else { "ipv6" };
                    self.set_contains(at, right, &|v| Some(v.as_str()? == own))
                }
                "protocol" => {
                    let own = if four { "ip" } else { "ip6" };
                    self.set_contains(at, right, &|v| Some(v.as_str()? == own))
                }
                "iif" | "iifname" if hook == "input" => {
                    self.set_contains(at, right, &|v| Some(is_named(interface, v.as_str()?)))
                }
                "oif" | "oifname" if hook == "output" => {
                    self.set_contains(at, right, &|v| Some(is_named(interface, v.as_str()?)))
                }
                _ => None,
            };
        }
        if let Some(key) = text("ct", "key") {
            let own = if established { "established" } else { "new" };
            return match key {
                "state" => self.set_contains(at, right, &|v| Some(v.as_str()? == own)),
                "status" => Some(false),
                _ => None,
            };
        }
        let (header, field) = (text("payload", "protocol")?, text("payload", "field")?);
        let port = |own: u16| self.set_contains(at, right, &move |v| is_port(own, v));
        let address = |own: IpAddr| self.set_contains(at, right, &move |v| is_address(own, v));
        let own = match protocol {
            FilterProtocol::Udp => ["udp", "th"],
            FilterProtocol::Tcp => ["tcp", "th"],
            FilterProtocol::Echo if four => ["icmp", "icmp"],
            FilterProtocol::Echo => ["icmpv6", "icmpv6"],
        };
        match (header, field) {
            (header, "type") if own.contains(&header) && protocol == FilterProtocol::Echo => {
                self.set_contains(at, right, &|v| Some(v.as_str()? == "echo-request"))
            }
            (header, "dport") if own.contains(&header) => port(destination.port()),
            (header, "sport") if own.contains(&header) => port(source.port()),
            (header, _) if own.contains(&header) => None,
            ("ether", _) => None,
            ("udp" | "tcp" | "th" | "sctp" | "dccp" | "icmp" | "icmpv6" | "igmp" | "arp", _) => {
                Some(false)
            }
            ("ip", _) if !four => Some(false),
            ("ip6", _) if four => Some(false),
            ("ip" | "ip6", "saddr") => address(source.ip()),
            ("ip" | "ip6", "daddr") => address(destination.ip()),
            ("ip", "protocol") | ("ip6", "nexthdr") => {
                self.set_contains(at, right, &|v| Some(is_protocol(protocol, four, v)))
            }
            _ => None,
        }
    }

    /// True if `right`, a value, a list, a set or the name of a set, contains a match of `is`.
    fn set_contains(
        &self,
        at: (&str, &str),
        right: &Value,
        is: &dyn Fn(&Value) -> MatchResult,
    ) -> MatchResult {
        let any = |list: &[Value]| {
            let all: Vec<_> = list.iter().map(|one| self.set_contains(at, one, is)).collect();
            match all.contains(&Some(true)) {
                true => Some(true),
                false if all.contains(&None) => None,
                false => Some(false),
            }
        };
        if let Some(name) = right.as_str().and_then(|text| text.strip_prefix('@')) {
            let set = self.all.iter().filter_map(|item| item.get("set")).find(|set| {
                let is = |key, wanted| set.get(key).and_then(Value::as_str) == Some(wanted);
                is("family", at.0) && is("table", at.1) && is("name", name)
            })?;
            return any(set.get("elem").and_then(Value::as_array).map_or(&[], Vec::as_slice));
        }
        if let Some(list) = right.as_array().or_else(|| right.get("set").and_then(Value::as_array))
        {
            return any(list);
        }
        if let Some(value) = right.get("elem").and_then(|elem| elem.get("val")) {
            return self.set_contains(at, value, is);
        }
        is(right)
    }
}

fn is_protocol(protocol: FilterProtocol, four: bool, value: &Value) -> bool {
    let (name, number) = protocol.identifiers(four);
    value.as_str() == Some(name) || value.as_u64() == Some(number)
}

fn is_named(own: &str, pattern: &str) -> bool {
    pattern.strip_suffix('*').map_or(own == pattern, |start| own.starts_with(start))
}

fn is_port(own: u16, value: &Value) -> MatchResult {
    if let Some([low, high]) = range_bounds(value) {
        return Some((low.as_u64()?..=high.as_u64()?).contains(&u64::from(own)));
    }
    Some(value.as_u64()? == u64::from(own))
}

fn is_address(own: IpAddr, value: &Value) -> MatchResult {
    if let Some([low, high]) = range_bounds(value) {
        let (low, high): (IpAddr, IpAddr) =
            (low.as_str()?.parse().ok()?, high.as_str()?.parse().ok()?);
        return Some(low <= own && own <= high);
    }
    if let Some(prefix) = value.get("prefix") {
        let addr: IpAddr = prefix.get("addr")?.as_str()?.parse().ok()?;
        let length = u8::try_from(prefix.get("len")?.as_u64()?).ok()?;
        return Some(IpNet::new(addr, length).ok()?.contains(&own));
    }
    Some(value.as_str()?.parse::<IpAddr>().ok()? == own)
}

fn range_bounds(value: &Value) -> Option<&[Value; 2]> {
    value.get("range")?.as_array()?.as_slice().try_into().ok()
}
