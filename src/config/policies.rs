//! How data to a peer uses its routes: `policy`, and `[[peer.class]]`. Pure.

use netft::{
    config::{ConfigKey, keys},
    route::{
        PeerPolicies, Policy, TrafficClass,
        policy::{Dscp, MAX_CLASSES, PortRange, Protocol},
    },
};
use toml::Spanned;

use super::{
    problem::ConfigProblem, raw, raw::OptionalField, reader::FieldReader, value::TomlValue,
};

pub(super) fn read_policies(
    reader: &mut FieldReader,
    peer: &raw::PeerSection,
    owner: &str,
) -> PeerPolicies {
    let policies = PeerPolicies::new(
        read_policy(reader, &peer.policy, &keys::PEER_POLICY).unwrap_or_default(),
    );
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
    // Every mistake of a class is reported above, with its place.
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
    reader.require_field(&raw.policy, &keys::CLASS_POLICY, table.span(), help);
    let size = |size: u64| size as u32;
    let class = TrafficClass {
        policy: read_policy(reader, &raw.policy, &keys::CLASS_POLICY).unwrap_or_default(),
        dscp: read_dscp(reader, &raw.dscp),
        protocol: reader.read_choice(&raw.protocol, &keys::CLASS_PROTOCOL, Protocol::from_name),
        ports: read_ports(reader, &raw.port),
        min_size: reader.read_number(&raw.min_size, &keys::CLASS_MIN_SIZE).map(size),
        max_size: reader.read_number(&raw.max_size, &keys::CLASS_MAX_SIZE).map(size),
    };
    // A refused value reads as one left out, which is no mistake of the class.
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

fn read_policy(reader: &mut FieldReader, field: &OptionalField, key: &ConfigKey) -> Option<Policy> {
    reader.read_choice(field, key, |text| text.parse().ok())
}

fn read_dscp(reader: &mut FieldReader, field: &OptionalField) -> Option<Dscp> {
    let key = &keys::CLASS_DSCP;
    if is_number(field) {
        return Dscp::new(reader.read_number(field, key)?).ok();
    }
    let parse = |text: &str| Dscp::from_name(text).ok_or_else(|| "no code point's name".to_owned());
    Some(reader.parse_text(field, key, parse)?.0)
}

fn read_ports(reader: &mut FieldReader, field: &OptionalField) -> Option<PortRange> {
    let key = &keys::CLASS_PORT;
    if is_number(field) {
        let port = reader.read_number(field, key)? as u16;
        return PortRange::new(port, port);
    }
    let parse = |text: &str| text.parse::<PortRange>().map_err(|error| error.to_string());
    Some(reader.parse_text(field, key, parse)?.0)
}

fn is_number(field: &OptionalField) -> bool {
    field.as_ref().is_some_and(|value| matches!(value.get_ref(), TomlValue::Integer(_)))
}
