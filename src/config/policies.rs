//! How data to a peer uses its routes: `policy`, and `[[peer.class]]`. Pure.

use netft::route::{
    PeerPolicies, Policy, TrafficClass,
    policy::{Dscp, MAX_CLASSES, PortRange, Protocol},
};
use toml::Spanned;

use super::{
    problem::ConfigProblem,
    raw,
    raw::OptionalField,
    reader::{FieldReader, NumberLimits},
    value::TomlValue,
};

const POLICY_SYNTAX: &str = "`failover`, `duplicate` or `balance`";
const PROTOCOL_SYNTAX: &str = "`tcp`, `udp` or `icmp`";
const PORT_SYNTAX: &str = "a port such as `5060`, or a range such as `\"5060-5070\"`";
const DSCP_SYNTAX: &str =
    "a number from 0 to 63, or a name such as `\"ef\"`, `\"cs6\"` or `\"af41\"`";
/// The largest packet IP can name.
const PACKET_SIZE_LIMITS: NumberLimits = NumberLimits::new(1, 65_535, "bytes");

pub(super) fn read_policies(
    reader: &mut FieldReader,
    peer: &raw::PeerTable,
    owner: &str,
) -> PeerPolicies {
    let policies = PeerPolicies::new(read_policy(reader, &peer.policy).unwrap_or_default());
    if let Some(beyond) = peer.class.get(MAX_CLASSES) {
        let message = format!("{owner} has more than the {MAX_CLASSES} classes allowed");
        reader.report_problem(ConfigProblem::at_span(
            beyond.span(),
            message,
            "the first one too many",
        ));
        return policies;
    }
    let classes = peer.class.iter().map(|table| read_class(reader, table, owner)).collect();
    // What a class can do wrong is reported above, with its place.
    policies.clone().with_classes(classes).unwrap_or(policies)
}

fn read_class(
    reader: &mut FieldReader,
    table: &Spanned<raw::ClassTable>,
    owner: &str,
) -> TrafficClass {
    let raw = table.get_ref();
    let before = reader.problems.len();
    let help = "for example `policy = \"duplicate\"`";
    reader.require_field(&raw.policy, "policy", table.span(), help);
    let size = |size: u64| size as u32;
    let class = TrafficClass {
        policy: read_policy(reader, &raw.policy).unwrap_or_default(),
        dscp: read_dscp(reader, &raw.dscp),
        protocol: read_protocol(reader, &raw.protocol),
        ports: read_ports(reader, &raw.port),
        min_size: reader.read_number(&raw.min_size, "min_size", PACKET_SIZE_LIMITS).map(size),
        max_size: reader.read_number(&raw.max_size, "max_size", PACKET_SIZE_LIMITS).map(size),
    };
    // A value that was refused reads as one left out: no mistake of the class.
    if reader.problems.len() == before
        && let Some(what) = class.find_mistake()
    {
        let message = format!("a class of {owner} cannot be meant so");
        reader.report_problem(ConfigProblem::at_span(table.span(), message, what).with_help(
            "a class is narrowed by `dscp`, `protocol`, `port`, `min_size` and `max_size`",
        ));
    }
    class
}

fn read_policy(reader: &mut FieldReader, field: &OptionalField) -> Option<Policy> {
    let parse = |text: &str| text.parse().map_err(|_| "not one of the three".to_owned());
    Some(reader.parse_text(field, "policy", POLICY_SYNTAX, parse)?.0)
}

fn read_protocol(reader: &mut FieldReader, field: &OptionalField) -> Option<Protocol> {
    let parse =
        |text: &str| Protocol::from_name(text).ok_or_else(|| "not one of the three".to_owned());
    Some(reader.parse_text(field, "protocol", PROTOCOL_SYNTAX, parse)?.0)
}

fn read_dscp(reader: &mut FieldReader, field: &OptionalField) -> Option<Dscp> {
    if is_number(field) {
        let number = reader.read_number(field, "dscp", NumberLimits::new(0, 63, ""))?;
        return Dscp::new(number).ok();
    }
    let parse = |text: &str| Dscp::from_name(text).ok_or_else(|| "no code point's name".to_owned());
    Some(reader.parse_text(field, "dscp", DSCP_SYNTAX, parse)?.0)
}

fn read_ports(reader: &mut FieldReader, field: &OptionalField) -> Option<PortRange> {
    if is_number(field) {
        let port = reader.read_number(field, "port", NumberLimits::new(1, 65_535, ""))? as u16;
        return PortRange::new(port, port);
    }
    let parse = |text: &str| text.parse::<PortRange>().map_err(|error| error.to_string());
    Some(reader.parse_text(field, "port", PORT_SYNTAX, parse)?.0)
}

fn is_number(field: &OptionalField) -> bool {
    field.as_ref().is_some_and(|value| matches!(value.get_ref(), TomlValue::Integer(_)))
}
