//! The names of a config: `[dns]` and `[[dns.name]]`. Pure.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};

use netft::config::{DnsConfig, DnsName, MAX_DNS_NAMES, VipConfig, host_name, keys, node_name};
use toml::Spanned;

use super::{
    problem::ConfigProblem,
    raw,
    reader::{FieldReader, UniqueKeys},
};

/// Port of DNS.
const DNS_PORT: u16 = 53;

/// Reads the tables; `folder`: where a relative path of the key file starts.
pub(super) fn read_dns(
    reader: &mut FieldReader,
    table: &Spanned<raw::DnsTable>,
    vips: &[VipConfig],
    folder: &Path,
) -> Option<DnsConfig> {
    let raw = table.get_ref();
    for (field, key, help) in [
        (&raw.server, &keys::DNS_SERVER, "for example `server = \"10.1.0.53\"`"),
        (&raw.zone, &keys::DNS_ZONE, "for example `zone = \"cluster.example\"`"),
        (&raw.key_file, &keys::DNS_KEY_FILE, "`tsig-keygen` writes one for BIND and netftd"),
    ] {
        reader.require_field(field, key, table.span(), help);
    }
    let server = reader.parse_text(&raw.server, &keys::DNS_SERVER, parse_server);
    let zone = reader.parse_text(&raw.zone, &keys::DNS_ZONE, host_name);
    let key_file = reader.parse_text(&raw.key_file, &keys::DNS_KEY_FILE, |text| match text {
        "" => Err("it is empty".to_owned()),
        _ => Ok(folder.join(text)),
    });
    if let Some(beyond) = raw.name.get(MAX_DNS_NAMES) {
        let message = format!("{} names, more than the {MAX_DNS_NAMES} allowed", raw.name.len());
        reader.report_problem(ConfigProblem::at_span(
            beyond.span(),
            message,
            "the first one too many",
        ));
        return None;
    }
    let mut taken = UniqueKeys::new();
    let names = raw.name.iter().filter_map(|name| read_name(reader, name, vips, &mut taken));
    let names: Vec<_> = names.collect();
    let mut dns = DnsConfig { names, ..DnsConfig::new(server?.0, zone?.0, key_file?.0) };
    reader.store_number(&mut dns.ttl, &raw.ttl, &keys::DNS_TTL);
    Some(dns)
}

fn read_name(
    reader: &mut FieldReader,
    table: &Spanned<raw::NameSection>,
    vips: &[VipConfig],
    taken: &mut UniqueKeys<String>,
) -> Option<DnsName> {
    let raw = table.get_ref();
    let help = "for example `name = \"web\"`, which stands before the zone";
    reader.require_field(&raw.name, &keys::DNS_NAME_NAME, table.span(), help);
    let help = "for example `members = [\"web\"]`, names of `[[vip]]`";
    reader.require_field(&raw.members, &keys::DNS_NAME_MEMBERS, table.span(), help);
    let name = reader.parse_text(&raw.name, &keys::DNS_NAME_NAME, host_name);
    if let Some((name, span)) = &name {
        let owner = format!("name {name:?}");
        taken.claim_key(reader, name.clone(), &owner, &owner, span);
    }
    let members = reader.read_list(&raw.members, &keys::DNS_NAME_MEMBERS, node_name);
    for (member, span) in &members {
        if !vips.iter().any(|vip| vip.name == *member) {
            let message = format!("there is no floating address {member:?}");
            let problem = ConfigProblem::at_span(span.clone(), message, "no `[[vip]]` has it");
            reader.report_problem(problem.with_help("write the `name` of a `[[vip]]`"));
        }
    }
    let mut register_all = false;
    reader.store_flag(&mut register_all, &raw.register_all, &keys::DNS_NAME_REGISTER_ALL);
    let members = members.into_iter().map(|(member, _)| member).collect();
    Some(DnsName { name: name?.0, members, register_all })
}

fn parse_server(text: &str) -> Result<SocketAddr, String> {
    match (text.parse::<IpAddr>(), text.parse::<SocketAddr>()) {
        (Ok(addr), _) => Ok(SocketAddr::new(addr, DNS_PORT)),
        (_, Ok(at)) if at.port() != 0 => Ok(at),
        _ => Err("this is no IP address, with a port or without one".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use netft::api::host::identity;

    use super::*;

    const BASE_TEXT: &str = "[node]\nname = \"a\"\nkey = \"key\"\n\
        [[vip]]\nname = \"web4\"\naddress = \"10.1.0.80\"\n\
        [[vip]]\nname = \"web6\"\naddress = \"fd01::80\"\n";
    const DNS_TEXT: &str =
        "[dns]\nserver = \"10.1.0.53\"\nzone = \"Cluster.Example.\"\nkey_file = \"dns.key\"\n";

    fn load(text: &str) -> Result<Option<DnsConfig>, String> {
        let folder = tempfile::tempdir().unwrap();
        let key = identity::generate_key().unwrap();
        identity::write_key_file(&folder.path().join("key"), &key).unwrap();
        let path = folder.path().join("n.toml");
        std::fs::write(&path, format!("{BASE_TEXT}{text}")).unwrap();
        let loaded = crate::config::load_config(&path, Path::new("/run/netft"));
        loaded.map(|config| config.floating.dns).map_err(|error| error.to_string())
    }

    #[test]
    fn every_key_of_the_names_is_understood() {
        assert_eq!(load(""), Ok(None));
        let text = "ttl = 60\n[[dns.name]]\nname = \"web\"\nmembers = [\"web4\", \"web6\"]\n\
                    register_all = true\n[[dns.name]]\nname = \"www.web\"\nmembers = [\"web4\"]\n";
        let dns = load(&format!("{DNS_TEXT}{text}")).unwrap().unwrap();
        assert_eq!((dns.server, dns.ttl), ("10.1.0.53:53".parse().unwrap(), 60));
        assert!(dns.key_file.ends_with("dns.key") && dns.key_file.is_absolute());
        let names: Vec<_> = dns.names.iter().map(|name| dns.full_name(name)).collect();
        assert_eq!(names, ["web.cluster.example", "www.web.cluster.example"]);
        assert_eq!(dns.names[0].members, ["web4", "web6"]);
        assert!(dns.names[0].register_all && !dns.names[1].register_all);
    }

    #[test]
    fn a_name_with_a_mistake_is_refused_with_its_place() {
        let named = |rest: &str| format!("{DNS_TEXT}[[dns.name]]\n{rest}");
        for (text, words) in [
            ("[dns]\n".to_owned(), "`server` is missing"),
            (DNS_TEXT.replace("10.1.0.53", "ns.example"), "no IP address"),
            (DNS_TEXT.replace("Cluster", "Clu_ster"), "no part of a host's name"),
            (format!("{DNS_TEXT}ttl = -1\n"), "seconds"),
            (named("name = \"web\"\n"), "`members` is missing"),
            (named("members = [\"web4\"]\n"), "`name` is missing"),
            (named("name = \"web\"\nmembers = [\"db\"]\n"), "there is no floating address \"db\""),
            (named("name = \"web\"\nmembers = []\n"), "leads nowhere"),
            (
                named("name = \"web\"\nmembers = [\"web4\"]\n")
                    + "[[dns.name]]\nname = \"Web\"\nmembers = [\"web6\"]\n",
                "used twice",
            ),
        ] {
            let error = load(&text).unwrap_err();
            assert!(error.contains(words), "{text}\n{error}");
        }
    }
}
