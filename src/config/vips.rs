//! The floating addresses of a config: `[[vip]]` and `[vip.check]`. Pure.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use netft::config::{
    ConfigKey, DEFAULT_CHECK_STATUS, DHCP_WORD, MAX_VIPS, OwnershipConfig, VipAddress, VipCheck,
    VipConfig, VipFailback, VipFence, VipHook, VipOwnership, VipProbe, adapter_name, keys,
    network_prefix, node_name, vip_address,
};
use toml::Spanned;

use super::{
    etcd::read_etcd,
    problem::ConfigProblem,
    raw,
    raw::OptionalField,
    reader::{ByteSpan, FieldReader, UniqueKeys, absolute_path},
    value::TomlValue,
};

/// Shortest lease that a cluster manager's agent can renew in time.
const MIN_EXTERNAL_LEASE: Duration = Duration::from_secs(2);

/// Reports an address that cannot be a physical one.
type AddressCheck<'a> = &'a dyn Fn(&mut FieldReader, IpAddr, &ByteSpan);

/// Names and addresses, which no two floating addresses may share.
struct ClaimedVips {
    names: UniqueKeys<String>,
    addresses: UniqueKeys<IpAddr>,
}

pub(super) fn read_vips(
    reader: &mut FieldReader,
    tables: &[Spanned<raw::VipSection>],
    refuse_virtual: AddressCheck<'_>,
) -> Vec<VipConfig> {
    if let Some(beyond) = tables.get(MAX_VIPS) {
        let message =
            format!("{} floating addresses, more than the {MAX_VIPS} allowed", tables.len());
        reader.report_problem(ConfigProblem::at_span(
            beyond.span(),
            message,
            "the first one too many",
        ));
        return Vec::new();
    }
    let mut taken = ClaimedVips { names: UniqueKeys::new(), addresses: UniqueKeys::new() };
    tables.iter().filter_map(|table| read_vip(reader, table, refuse_virtual, &mut taken)).collect()
}

/// Reports preferred owners that are no nodes of this config.
pub(super) fn check_node_names(
    reader: &mut FieldReader,
    tables: &[Spanned<raw::VipSection>],
    nodes: &[&str],
) {
    for table in tables {
        let mut quiet = FieldReader::default();
        let field = &table.get_ref().preferred;
        for (name, span) in quiet.read_list(field, &keys::VIP_PREFERRED, node_name) {
            if !nodes.contains(&name.as_str()) {
                let message = format!("there is no node {name:?}");
                let help = "write a `name` of `[node]` or of a `[[peer]]`";
                let problem = ConfigProblem::at_span(span, message, "no node has this name");
                reader.report_problem(problem.with_help(help));
            }
        }
    }
}

/// The voters, which are nodes of this config, and their store.
pub(super) fn read_ownership(
    reader: &mut FieldReader,
    table: &raw::OwnershipTable,
    nodes: &[&str],
) -> OwnershipConfig {
    let node = |text: &str| match nodes.contains(&text) {
        true => Ok(text.to_owned()),
        false => Err("no node has this name".to_owned()),
    };
    let voters = reader.read_list(&table.voters, &keys::OWNERSHIP_VOTERS, node);
    let store = reader.parse_text(&table.store, &keys::OWNERSHIP_STORE, absolute_path);
    OwnershipConfig {
        voters: voters.into_iter().map(|(name, _)| name).collect(),
        store: store.map(|(path, _)| path),
        etcd: read_etcd(reader, &table.etcd),
    }
}

fn read_vip(
    reader: &mut FieldReader,
    table: &Spanned<raw::VipSection>,
    refuse_virtual: AddressCheck<'_>,
    taken: &mut ClaimedVips,
) -> Option<VipConfig> {
    let vip = table.get_ref();
    let help = "for example `name = \"web\"`, the same on every node";
    reader.require_field(&vip.name, &keys::VIP_NAME, table.span(), help);
    let help = "for example `address = \"10.1.0.80\"`";
    reader.require_field(&vip.address, &keys::VIP_ADDRESS, table.span(), help);

    let name = reader.parse_text(&vip.name, &keys::VIP_NAME, node_name);
    let owner = name.as_ref().map_or_else(
        || "a floating address without a name".to_owned(),
        |(name, _)| format!("floating address {name:?}"),
    );
    if let Some((name, span)) = &name {
        taken.names.claim_key(reader, name.clone(), &format!("name {name:?}"), &owner, span);
    }
    let addresses = read_addresses(reader, vip, refuse_virtual, taken, &owner);
    let interface = read_interface(reader, vip, &addresses);
    if let Some((field, [])) = vip.address.as_ref().zip(Some(&addresses[..])) {
        check_assigned(reader, field, interface.1, interface.0.is_some());
    }
    let ownership =
        reader.read_choice(&vip.ownership, &keys::VIP_OWNERSHIP, VipOwnership::from_name);
    let fence = reader.read_choice(&vip.fence, &keys::VIP_FENCE, |word| {
        [VipFence::Nftables, VipFence::None].into_iter().find(|fence| fence.as_str() == word)
    });
    let check = vip.check.as_ref().and_then(|check| read_check(reader, check, &owner));
    let addresses: Vec<_> = addresses.into_iter().map(|(address, _)| address).collect();
    let (name, name_span) = name?;
    let mut config = VipConfig::new(name, addresses);
    (config.interface, config.network) = interface;
    config.ownership = ownership.unwrap_or_default();
    config.lease = config.ownership.default_lease();
    config.fence = fence.unwrap_or_default();
    let from_millis = Duration::from_millis;
    reader.store_duration(&mut config.lease, &vip.lease, &keys::VIP_LEASE, from_millis);
    if let (VipOwnership::External, Some(lease)) = (config.ownership, &vip.lease)
        && config.lease < MIN_EXTERNAL_LEASE
    {
        let message = "a cluster manager renews a lease once in seconds".to_owned();
        let problem = ConfigProblem::at_span(lease.span(), message, "shorter than 2000 ms");
        reader.report_problem(problem.with_help("leave it out: then it is 15 s"));
    }
    reader.store_flag(&mut config.source, &vip.source, &keys::VIP_SOURCE);
    reader.store_flag(&mut config.follow, &vip.follow, &keys::VIP_FOLLOW);
    let preferred = reader.read_list(&vip.preferred, &keys::VIP_PREFERRED, node_name);
    config.preferred = preferred.into_iter().map(|(node, _)| node).collect();
    (config.together_with, config.apart_from) = read_companions(reader, vip);
    config.failback = read_failback(reader, &vip.failback).unwrap_or_default();
    if config.follow && check.is_none() {
        let message = format!("{owner} follows a check, and has none");
        let problem = ConfigProblem::at_span(name_span, message, "this one");
        reader.report_problem(problem.with_help("add `check = { tcp = \"127.0.0.1:5432\" }`"));
    }
    config.check = check;
    if let Some(command) = read_command(reader, &vip.hook, &keys::VIP_HOOK) {
        let mut hook = VipHook::new(command);
        let (field, key) = (&vip.hook_timeout, &keys::VIP_HOOK_TIMEOUT);
        reader.store_duration(&mut hook.timeout, field, key, from_millis);
        config.hook = Some(hook);
    }
    Some(config)
}

/// Names of the addresses that it belongs with, and of those that it keeps away from.
fn read_companions(reader: &mut FieldReader, vip: &raw::VipSection) -> (Vec<String>, Vec<String>) {
    let lists = [
        reader.read_list(&vip.placement.together_with, &keys::VIP_TOGETHER_WITH, node_name),
        reader.read_list(&vip.placement.apart_from, &keys::VIP_APART_FROM, node_name),
    ];
    let [together, apart] = lists.map(|list| list.into_iter().map(|(name, _)| name).collect());
    (together, apart)
}

/// Reports wishes about addresses that are none, and wishes in a circle, which no placement ends.
pub(super) fn check_companions(
    reader: &mut FieldReader,
    tables: &[Spanned<raw::VipSection>],
    vips: &[VipConfig],
) {
    let wishes_of = |name: &str| {
        let vip = vips.iter().find(|vip| vip.name == name);
        vip.into_iter().flat_map(|vip| vip.together_with.iter().chain(&vip.apart_from))
    };
    let leads_to = |start: &str, end: &str| {
        let (mut reached, mut open) = (BTreeSet::new(), vec![start.to_owned()]);
        while let Some(name) = open.pop() {
            if reached.insert(name.clone()) {
                open.extend(wishes_of(&name).cloned());
            }
        }
        reached.contains(end)
    };
    for table in tables {
        let (mut quiet, raw) = (FieldReader::default(), table.get_ref());
        let Some((own, _)) = quiet.parse_text(&raw.name, &keys::VIP_NAME, node_name) else {
            continue;
        };
        let lists = [
            (&raw.placement.together_with, &keys::VIP_TOGETHER_WITH),
            (&raw.placement.apart_from, &keys::VIP_APART_FROM),
        ];
        for (field, key) in lists {
            for (name, span) in quiet.read_list(field, key, node_name) {
                let (message, label, help) = if !vips.iter().any(|vip| vip.name == name) {
                    let help = "write the `name` of another `[[vip]]`";
                    (format!("there is no floating address {name:?}"), "no `[[vip]]` has it", help)
                } else if leads_to(&name, &own) {
                    let help = "an address follows others, or avoids them; these do not heed it: \
                                write the wish at one of them";
                    (format!("the wishes of {own:?} lead back to it"), "this one", help)
                } else {
                    continue;
                };
                let problem = ConfigProblem::at_span(span, message, label);
                reader.report_problem(problem.with_help(help));
            }
        }
    }
}

fn read_addresses(
    reader: &mut FieldReader,
    vip: &raw::VipSection,
    refuse_virtual: AddressCheck<'_>,
    taken: &mut ClaimedVips,
    owner: &str,
) -> Vec<(VipAddress, ByteSpan)> {
    let list = reader.read_list(&vip.address, &keys::VIP_ADDRESS, |text| match text {
        DHCP_WORD => Ok(None),
        text => vip_address(text).map(Some),
    });
    let mut found: Vec<(VipAddress, ByteSpan)> = Vec::new();
    if let [_, _, ..] = list[..]
        && let Some((_, span)) = list.iter().find(|(address, _)| address.is_none())
    {
        let message = format!("{owner} has `dhcp` beside other addresses");
        let problem = ConfigProblem::at_span(span.clone(), message, "this one");
        reader.report_problem(problem.with_help("give the others a `[[vip]]` of their own"));
    }
    for (address, span) in list {
        let Some(address) = address else { continue };
        refuse_virtual(reader, address.addr, &span);
        let what = format!("address {}", address.addr);
        taken.addresses.claim_key(reader, address.addr, &what, owner, &span);
        let same = |(other, _): &&(VipAddress, ByteSpan)| {
            other.addr.is_ipv4() == address.addr.is_ipv4() && other.addr != address.addr
        };
        if let Some((_, first)) = found.iter().find(same) {
            let message = format!("{owner} has two addresses of one family");
            reader.report_problem(
                ConfigProblem::at_span(span, message, "this one")
                    .with_mark(first.clone(), "and this one")
                    .with_help("give each its own `[[vip]]`"),
            );
            continue;
        }
        found.push((address, span));
    }
    if let (Some(field), []) = (&vip.address, &found[..])
        && matches!(field.get_ref(), TomlValue::List(items) if items.is_empty())
    {
        let message = format!("{owner} has no address");
        reader.report_problem(ConfigProblem::at_span(field.span(), message, "an empty list"));
    }
    found
}

/// Reports an address from a DHCP server that has no place.
fn check_assigned(
    reader: &mut FieldReader,
    field: &Spanned<TomlValue>,
    network: Option<ipnet::IpNet>,
    has_interface: bool,
) {
    let is_dhcp = |value: &TomlValue| matches!(value, TomlValue::Text(text) if text == DHCP_WORD);
    let is_assigned = match field.get_ref() {
        TomlValue::List(items) => items.iter().any(|item| is_dhcp(item.get_ref())),
        value => is_dhcp(value),
    };
    let is_placed = network.map_or(has_interface, |network| network.addr().is_ipv4());
    if is_assigned && !is_placed {
        let message = "`dhcp` does not say where the address is";
        let problem = ConfigProblem::at_span(field.span(), message, "this one");
        reader.report_problem(
            problem.with_help("add `interface = \"eth0\"` or `network = \"10.1.0.0/24\"`"),
        );
    }
}

/// The interface or the network that the file names.
fn read_interface(
    reader: &mut FieldReader,
    vip: &raw::VipSection,
    addresses: &[(VipAddress, ByteSpan)],
) -> (Option<String>, Option<ipnet::IpNet>) {
    let interface = reader.parse_text(&vip.interface, &keys::VIP_INTERFACE, adapter_name);
    let network = reader.parse_text(&vip.network, &keys::VIP_NETWORK, network_prefix);
    if let (Some((_, first)), Some((_, span))) = (&interface, &network) {
        let message = "`interface` and `network` both say where the address is";
        reader.report_problem(
            ConfigProblem::at_span(span.clone(), message, "this one")
                .with_mark(first.clone(), "and this one")
                .with_help("leave one of them out"),
        );
    }
    if let Some((network, network_span)) = &network {
        let is_v4 = network.addr().is_ipv4();
        for (VipAddress { addr, .. }, span) in addresses {
            if addr.is_ipv4() == is_v4 && !network.contains(addr) {
                let message = format!("address {addr} is outside network {network}");
                reader.report_problem(
                    ConfigProblem::at_span(span.clone(), message, "this address")
                        .with_mark(network_span.clone(), "its network"),
                );
            }
        }
    }
    (interface.map(|(name, _)| name), network.map(|(network, _)| network))
}

fn read_failback(reader: &mut FieldReader, field: &OptionalField) -> Option<VipFailback> {
    let key = &keys::VIP_FAILBACK;
    if field.as_ref().is_some_and(|value| matches!(value.get_ref(), TomlValue::Integer(_))) {
        let millis = reader.read_number(field, key)?;
        return Some(VipFailback::After(Duration::from_millis(millis)));
    }
    reader.read_choice(field, key, |text| match text {
        "never" => Some(VipFailback::Never),
        "at-once" => Some(VipFailback::After(Duration::ZERO)),
        _ => None,
    })
}

/// A program and its arguments.
fn read_command(
    reader: &mut FieldReader,
    field: &OptionalField,
    key: &ConfigKey,
) -> Option<Vec<String>> {
    let words = reader.read_list(field, key, |word| Ok(word.to_owned()));
    let field = field.as_ref()?;
    match words.first() {
        Some((program, _)) if program.starts_with('/') => {}
        Some((program, span)) => {
            let message = format!("`{}` starts with {program:?}", key.name());
            reader.report_problem(
                ConfigProblem::at_span(span.clone(), message, "no absolute path")
                    .with_help("name the program by its absolute path: nothing searches for it"),
            );
        }
        None if matches!(field.get_ref(), TomlValue::List(items) if items.is_empty()) => {
            let message = format!("`{}` names no program", key.name());
            reader.report_problem(ConfigProblem::at_span(field.span(), message, "an empty list"));
        }
        // Reported above.
        None => {}
    }
    Some(words.into_iter().map(|(word, _)| word).collect())
}

fn read_check(
    reader: &mut FieldReader,
    table: &Spanned<raw::CheckTable>,
    owner: &str,
) -> Option<VipCheck> {
    let raw = table.get_ref();
    let given = [&raw.tcp, &raw.http, &raw.exec].into_iter().filter(|field| field.is_some());
    if given.count() != 1 {
        let message = format!("the check of {owner} needs one of `tcp`, `http` and `exec`");
        let problem = ConfigProblem::at_span(table.span(), message, "this check");
        reader.report_problem(problem.with_help("for example `check = { tcp = \"[::1]:80\" }`"));
        return None;
    }
    let tcp = reader.parse_text(&raw.tcp, &keys::VIP_CHECK_TCP, parse_target);
    let http = reader.parse_text(&raw.http, &keys::VIP_CHECK_HTTP, parse_url);
    let exec = read_command(reader, &raw.exec, &keys::VIP_CHECK_EXEC);
    let mut status = DEFAULT_CHECK_STATUS;
    reader.store_number(&mut status, &raw.status, &keys::VIP_CHECK_STATUS);
    let probe = match (tcp, http, exec) {
        (Some((at, _)), ..) => VipProbe::Tcp(at),
        (_, Some(((at, host, path), _)), _) => VipProbe::Http { at, host, path, status },
        (.., Some(command)) => VipProbe::Exec(command),
        (None, None, None) => return None,
    };
    let mut check = VipCheck::new(probe);
    let from_millis = Duration::from_millis;
    let (timeout, interval) = (&mut check.timeout, &mut check.interval);
    reader.store_duration(timeout, &raw.timeout, &keys::VIP_CHECK_TIMEOUT, from_millis);
    reader.store_duration(interval, &raw.interval, &keys::VIP_CHECK_INTERVAL, from_millis);
    reader.store_number(&mut check.rise, &raw.rise, &keys::VIP_CHECK_RISE);
    reader.store_number(&mut check.fall, &raw.fall, &keys::VIP_CHECK_FALL);
    Some(check)
}

/// Where a check connects to: this node itself is allowed.
fn parse_target(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        Ok(at) if at.port() == 0 => Err("port 0 cannot be connected to".to_owned()),
        Ok(at) => Ok(at),
        Err(_) => Err("this is no IP address with a port".to_owned()),
    }
}

/// The endpoint, the host and the path of a URL.
fn parse_url(text: &str) -> Result<(SocketAddr, String, String), String> {
    let rest = text.strip_prefix("http://").ok_or("it does not start with `http://`")?;
    if let Some(c) = rest.chars().find(|c| !c.is_ascii_graphic()) {
        return Err(format!("{c:?} is not allowed"));
    }
    let (host, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let at = match bare {
        Ok(addr) => SocketAddr::new(addr, 80),
        Err(_) => parse_target(host)?,
    };
    if path.contains('#') {
        return Err("a fragment (`#`) is not sent to a server".to_owned());
    }
    Ok((at, host.to_owned(), path.to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Path;

    use netft::api::host::identity;

    use super::*;

    const BASE: &str = "[node]\nname = \"a\"\nkey = \"key\"\n\
        [[peer]]\nname = \"b\"\nkey = \"AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=\"\n";

    /// The config of this text, or its rendered problems.
    fn load(vips: &str) -> Result<Vec<VipConfig>, String> {
        let folder = tempfile::tempdir().unwrap();
        let key = identity::generate_key().unwrap();
        identity::write_key_file(&folder.path().join("key"), &key).unwrap();
        let path = folder.path().join("n.toml");
        std::fs::write(&path, format!("{BASE}{vips}")).unwrap();
        let loaded = crate::config::load_config(&path, Path::new("/run/netft"));
        loaded.map(|config| config.floating.vips).map_err(|error| error.to_string())
    }

    #[test]
    fn every_key_of_a_floating_address_is_understood() {
        let vips = load(
            "[[vip]]\nname = \"web\"\naddress = [\"10.1.0.80/24\", \"fd01::80\"]\n\
             interface = \"eth1\"\nownership = \"manual\"\nlease = 1000\nfence = \"none\"\n\
             source = true\npreferred = [\"b\", \"a\"]\nfailback = 60000\nfollow = true\n\
             placement = { together_with = [\"db\"] }\n\
             hook = [\"/bin/hook\", \"x\"]\nhook_timeout = 700\n\
             check = { http = \"http://[::1]:81/up\", status = 204, timeout = 50, interval = 60, \
             rise = 4, fall = 5 }\n\
             [[vip]]\nname = \"db\"\naddress = \"10.1.0.81\"\nnetwork = \"10.1.0.0/24\"\n\
             failback = \"at-once\"\n[[vip]]\nname = \"x\"\naddress = \"10.1.0.82\"\n\
             placement = { apart_from = [\"db\", \"web\"] }\n",
        );
        let both = ["10.1.0.80/24", "fd01::80"].map(|text| vip_address(text).unwrap());
        let probe = VipProbe::Http {
            at: "[::1]:81".parse().unwrap(),
            host: "[::1]:81".to_owned(),
            path: "/up".to_owned(),
            status: 204,
        };
        let hook = vec!["/bin/hook".to_owned(), "x".to_owned()];
        let web = VipConfig {
            interface: Some("eth1".to_owned()),
            lease: Duration::from_secs(1),
            fence: VipFence::None,
            source: true,
            preferred: vec!["b".to_owned(), "a".to_owned()],
            failback: VipFailback::After(Duration::from_secs(60)),
            follow: true,
            together_with: vec!["db".to_owned()],
            check: Some(VipCheck {
                probe,
                timeout: Duration::from_millis(50),
                interval: Duration::from_millis(60),
                rise: 4,
                fall: 5,
            }),
            hook: Some(VipHook { command: hook, timeout: Duration::from_millis(700) }),
            ..VipConfig::new("web", both.to_vec())
        };
        let db = VipConfig {
            network: Some("10.1.0.0/24".parse().unwrap()),
            failback: VipFailback::After(Duration::ZERO),
            ..VipConfig::new("db", vec![vip_address("10.1.0.81").unwrap()])
        };
        let x = VipConfig {
            apart_from: vec!["db".to_owned(), "web".to_owned()],
            ..VipConfig::new("x", vec![vip_address("10.1.0.82").unwrap()])
        };
        assert_eq!(vips, Ok(vec![web, db, x]));
    }

    #[test]
    fn an_address_from_a_server_needs_a_place_only() {
        let vips = load(
            "[[vip]]\nname = \"web\"\naddress = \"dhcp\"\ninterface = \"eth1\"\n\
             [[vip]]\nname = \"db\"\naddress = [\"dhcp\"]\nnetwork = \"10.1.0.0/24\"\n",
        )
        .unwrap();
        assert!(vips.iter().all(|vip| vip.is_dhcp() && vip.describe_addresses() == "dhcp"));
        assert!(vips[0].interface.is_some() && vips[1].network.is_some());
    }

    #[test]
    fn a_floating_address_with_a_mistake_is_refused_with_its_place() {
        let named = |rest: &str| format!("[[vip]]\nname = \"web\"\n{rest}");
        let full = |rest: &str| named(&format!("address = \"10.1.0.80\"\n{rest}"));
        for (text, place, words) in [
            (named(""), ":7:", "`address` is missing"),
            ("[[vip]]\naddress = \"10.1.0.80\"\n".to_owned(), ":7:", "`name` is missing"),
            (named("address = []"), ":9:", "has no address"),
            (named("address = [\"10.1.0.8\", \"10.1.0.9\"]"), ":9:", "two addresses of one"),
            (named("address = \"10.1.0.80/33\""), ":9:", "a number from 1 to 32"),
            (named("address = \"fe80::1\""), ":9:", "link-local"),
            (named("address = \"dhcp\""), ":9:", "does not say where"),
            (named("address = \"dhcp\"\nnetwork = \"fd01::/64\""), ":9:", "does not say where"),
            (
                named("address = [\"dhcp\", \"fd01::80\"]\ninterface = \"eth0\""),
                ":9:",
                "`dhcp` beside other",
            ),
            (full("lease = 5"), ":10:", "from 100 to 60000 ms"),
            (full("ownership = \"external\"\nlease = 400"), ":11:", "once in seconds"),
            (full("fence = \"yes\""), ":10:", "`nftables` or `none`"),
            (full("ownership = \"me\""), ":10:", "`ownership` is"),
            (full("preferred = [\"c\"]"), ":10:", "there is no node \"c\""),
            (full("failback = \"soon\""), ":10:", "\"at-once\""),
            (full("network = \"10.2.0.0/24\""), ":9:", "outside network 10.2.0.0/24"),
            (full("interface = \"a/b\""), ":10:", "interface name"),
            (
                full("interface = \"eth0\"\nnetwork = \"10.1.0.0/24\""),
                ":11:",
                "both say where the address is",
            ),
            (full("follow = true"), ":8:", "follows a check, and has none"),
            (
                full("placement = { apart_from = [\"db\"] }"),
                ":10:",
                "there is no floating address \"db\"",
            ),
            (
                full("placement = { together_with = [\"web\"] }"),
                ":10:",
                "wishes of \"web\" lead back to it",
            ),
            (
                full("placement = { together_with = [\"db\"] }\n")
                    + "[[vip]]\nname = \"db\"\naddress = \"10.1.0.81\"\n\
                       placement = { apart_from = [\"web\"] }",
                ":10:",
                "lead back to it",
            ),
            (full("hook = [\"x\"]"), ":10:", "absolute path"),
            (full("hook = []"), ":10:", "names no program"),
            (full("check = {}"), ":10:", "needs one of `tcp`, `http` and `exec`"),
            (full("check = { tcp = \"10.1.0.1\" }"), ":10:", "no IP address with a port"),
            (full("") + &full(""), ":11:", "used twice"),
        ] {
            let error = load(&text).unwrap_err();
            assert!(error.contains(words) && error.contains(place), "{text}\n{error}");
        }
    }

    #[test]
    fn a_url_names_an_address_and_a_path() {
        let shown = |text| parse_url(text).map(|(at, host, path)| format!("{at} {host} {path}"));
        for (text, expected) in [
            ("http://127.0.0.1:8008/primary", "127.0.0.1:8008 127.0.0.1:8008 /primary"),
            ("http://127.0.0.1", "127.0.0.1:80 127.0.0.1 /"),
            ("http://[::1]/x?y=1", "[::1]:80 [::1] /x?y=1"),
            ("http://[::1]:81/", "[::1]:81 [::1]:81 /"),
        ] {
            assert_eq!(shown(text), Ok(expected.to_owned()), "{text}");
        }
        for (text, word) in [
            ("https://127.0.0.1/", "http://"),
            ("http://localhost/", "no IP address"),
            ("http://127.0.0.1:0/", "port 0"),
            ("http://127.0.0.1/a b", "' '"),
            ("http://127.0.0.1/#part", "fragment"),
        ] {
            assert!(shown(text).is_err_and(|why| why.contains(word)), "{text}");
        }
    }
}
