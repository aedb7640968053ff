//! The etcd cluster of a config: `[ownership.etcd]`. Pure.

use std::time::Duration;

use netft::config::{EtcdConfig, VipOwnership, keys};
use toml::Spanned;

use super::{
    problem::ConfigProblem,
    raw,
    raw::OptionalField,
    reader::{FieldReader, absolute_path},
};

/// Longest prefix of the keys, bytes.
const MAX_PREFIX_LEN: usize = 200;

pub(super) fn read_etcd(reader: &mut FieldReader, table: &raw::EtcdTable) -> EtcdConfig {
    let mut config = EtcdConfig::default();
    let endpoints = reader.read_list(&table.endpoints, &keys::ETCD_ENDPOINTS, parse_endpoint);
    config.endpoints = endpoints.into_iter().map(|(endpoint, _)| endpoint).collect();
    if let Some((prefix, _)) = reader.parse_text(&table.prefix, &keys::ETCD_PREFIX, parse_prefix) {
        config.prefix = prefix;
    }
    reader.store_duration(&mut config.ttl, &table.ttl, &keys::ETCD_TTL, Duration::from_secs);
    let any = |text: &str| match text.is_empty() {
        true => Err("it is empty".to_owned()),
        false => Ok(text.to_owned()),
    };
    config.user = reader.parse_text(&table.user, &keys::ETCD_USER, any).map(|(user, _)| user);
    let file = &table.password_file;
    let file = reader.parse_text(file, &keys::ETCD_PASSWORD_FILE, absolute_path);
    config.password_file = file.map(|(path, _)| path);
    for (given, missing, field) in [
        (&table.user, "password_file", &table.password_file),
        (&table.password_file, "user", &table.user),
    ] {
        if let (Some(given), None) = (given, field) {
            let message =
                format!("`user` and `password_file` belong together: `{missing}` is missing");
            reader.report_problem(ConfigProblem::at_span(given.span(), message, "given alone"));
        }
    }
    config
}

/// Reports addresses that etcd decides on without an etcd cluster.
pub(super) fn require_endpoints(
    reader: &mut FieldReader,
    tables: &[Spanned<raw::VipSection>],
    endpoints: &OptionalField,
) {
    if endpoints.is_some() {
        return;
    }
    for table in tables {
        let mut quiet = FieldReader::default();
        let field = &table.get_ref().ownership;
        let engine = quiet.read_choice(field, &keys::VIP_OWNERSHIP, VipOwnership::from_name);
        if let (Some(VipOwnership::Etcd), Some(value)) = (engine, field) {
            let message = "`ownership = \"etcd\"` without an etcd cluster".to_owned();
            let help = "name its servers by `endpoints` in `[ownership.etcd]`";
            let problem = ConfigProblem::at_span(value.span(), message, "decided by etcd");
            reader.report_problem(problem.with_help(help));
        }
    }
}

/// The host and the port of a URL.
fn parse_endpoint(text: &str) -> Result<String, String> {
    if text.starts_with("https://") {
        return Err("https is not supported: give a server's http address".to_owned());
    }
    let rest = text.strip_prefix("http://").ok_or("it does not start with `http://`")?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = rest.rsplit_once(':').ok_or("it has no port")?;
    if !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err("its port is no number from 1 to 65535".to_owned());
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    match !host.is_empty() && host.chars().all(is_name) {
        true => Ok(rest.to_owned()),
        false => Err("its host is no name and no address".to_owned()),
    }
}

fn parse_prefix(text: &str) -> Result<String, String> {
    if let Some(c) = text.chars().find(|c| !c.is_ascii_graphic()) {
        return Err(format!("{c:?} is not allowed"));
    }
    match text.ends_with('/') {
        _ if text.len() > MAX_PREFIX_LEN => Err(format!("longer than {MAX_PREFIX_LEN} bytes")),
        true => Ok(text.to_owned()),
        false => Err("it does not end with `/`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_endpoint_is_a_host_with_a_port() {
        for (text, expected) in [
            ("http://10.1.0.5:2379", "10.1.0.5:2379"),
            ("http://etcd-1.example:2379/", "etcd-1.example:2379"),
            ("http://[fd00::5]:2379", "[fd00::5]:2379"),
        ] {
            assert_eq!(parse_endpoint(text).unwrap(), expected);
        }
        for (text, word) in [
            ("https://10.1.0.5:2379", "https is not supported"),
            ("10.1.0.5:2379", "http://"),
            ("http://10.1.0.5", "no port"),
            ("http://10.1.0.5:0", "port"),
            ("http://user@host:2379", "host"),
        ] {
            assert!(parse_endpoint(text).unwrap_err().contains(word), "{text}");
        }
        assert!(parse_prefix("/netft").is_err() && parse_prefix("/a b/").is_err());
    }
}
