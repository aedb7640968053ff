//! How data to a peer uses its routes: `policy`, and `[[peer.class]]`. Pure.

use netft::route::{
    Policies, Policy, TrafficClass,
    policy::{Dscp, MAX_CLASSES, Ports, Protocol},
};
use toml::Spanned;

use super::{
    problem::Problem,
    raw,
    raw::Field,
    reader::{Limits, Reader},
    value::Value,
};

const POLICY: &str = "`failover`, `duplicate` or `balance`";
const PROTOCOL: &str = "`tcp`, `udp` or `icmp`";
const PORT: &str = "a port such as `5060`, or a range such as `\"5060-5070\"`";
const DSCP: &str = "a number from 0 to 63, or a name such as `\"ef\"`, `\"cs6\"` or `\"af41\"`";
/// The largest packet IP can name.
const SIZES: Limits = Limits::new(1, 65_535, "bytes");

pub(super) fn policies(reader: &mut Reader, peer: &raw::Peer, owner: &str) -> Policies {
    let policies = Policies::new(policy(reader, &peer.policy).unwrap_or_default());
    if let Some(beyond) = peer.class.get(MAX_CLASSES) {
        let message = format!("{owner} has more than the {MAX_CLASSES} classes allowed");
        reader.report(Problem::at(beyond.span(), message, "the first one too many"));
        return policies;
    }
    let classes = peer.class.iter().map(|table| class(reader, table, owner)).collect();
    // What a class can do wrong is reported above, with its place.
    policies.clone().with_classes(classes).unwrap_or(policies)
}

fn class(reader: &mut Reader, table: &Spanned<raw::Class>, owner: &str) -> TrafficClass {
    let raw = table.get_ref();
    let before = reader.problems.len();
    let help = "for example `policy = \"duplicate\"`";
    reader.missing(&raw.policy, "policy", table.span(), help);
    let size = |size: u64| size as u32;
    let class = TrafficClass {
        policy: policy(reader, &raw.policy).unwrap_or_default(),
        dscp: dscp(reader, &raw.dscp),
        protocol: protocol(reader, &raw.protocol),
        ports: ports(reader, &raw.port),
        min_size: reader.number(&raw.min_size, "min_size", SIZES).map(size),
        max_size: reader.number(&raw.max_size, "max_size", SIZES).map(size),
    };
    // A value that was refused reads as one left out: no mistake of the class.
    if reader.problems.len() == before
        && let Some(what) = class.mistake()
    {
        let message = format!("a class of {owner} cannot be meant so");
        reader.report(
            Problem::at(table.span(), message, what).help(
                "a class is narrowed by `dscp`, `protocol`, `port`, `min_size` and `max_size`",
            ),
        );
    }
    class
}

fn policy(reader: &mut Reader, field: &Field) -> Option<Policy> {
    let parse = |text: &str| text.parse().map_err(|_| "not one of the three".to_owned());
    Some(reader.parse(field, "policy", POLICY, parse)?.0)
}

fn protocol(reader: &mut Reader, field: &Field) -> Option<Protocol> {
    let parse = |text: &str| Protocol::named(text).ok_or_else(|| "not one of the three".to_owned());
    Some(reader.parse(field, "protocol", PROTOCOL, parse)?.0)
}

fn dscp(reader: &mut Reader, field: &Field) -> Option<Dscp> {
    if is_number(field) {
        let number = reader.number(field, "dscp", Limits::new(0, 63, ""))?;
        return Dscp::new(number).ok();
    }
    let parse = |text: &str| Dscp::named(text).ok_or_else(|| "no code point's name".to_owned());
    Some(reader.parse(field, "dscp", DSCP, parse)?.0)
}

fn ports(reader: &mut Reader, field: &Field) -> Option<Ports> {
    if is_number(field) {
        let port = reader.number(field, "port", Limits::new(1, 65_535, ""))? as u16;
        return Ports::new(port, port);
    }
    let parse = |text: &str| text.parse::<Ports>().map_err(|error| error.to_string());
    Some(reader.parse(field, "port", PORT, parse)?.0)
}

fn is_number(field: &Field) -> bool {
    field.as_ref().is_some_and(|value| matches!(value.get_ref(), Value::Integer(_)))
}
