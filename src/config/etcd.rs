//! The etcd cluster of a config: `[ownership.etcd]`. Pure.

use std::time::Duration;

use netft::config::{EtcdConfig, EtcdTls, VipOwnership, keys};
use toml::Spanned;

use super::{
    metrics::pair_tls_files,
    problem::ConfigProblem,
    raw,
    raw::OptionalField,
    reader::{ByteSpan, FieldReader, absolute_path},
};

/// Longest prefix of the keys, bytes.
const MAX_PREFIX_LEN: usize = 200;
const HTTPS_SCHEME: &str = "https://";

pub(super) fn read_etcd(reader: &mut FieldReader, table: &raw::EtcdTable) -> EtcdConfig {
    let mut config = EtcdConfig::default();
    let endpoints = reader.read_list(&table.endpoints, &keys::ETCD_ENDPOINTS, parse_endpoint);
    config.tls = read_tls(reader, table, &endpoints);
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

/// The files for TLS. All servers are asked the same way: the next one may be any of them.
fn read_tls(
    reader: &mut FieldReader,
    table: &raw::EtcdTable,
    endpoints: &[(String, ByteSpan)],
) -> Option<EtcdTls> {
    let authorities = reader.parse_text(&table.ca_file, &keys::ETCD_CA_FILE, absolute_path);
    let certificate = &table.certificate_file;
    let certificate = reader.parse_text(certificate, &keys::ETCD_CERTIFICATE_FILE, absolute_path);
    let key = reader.parse_text(&table.key_file, &keys::ETCD_KEY_FILE, absolute_path);
    let given = certificate.as_ref().or(key.as_ref()).map(|(_, span)| span.clone());
    let client = pair_tls_files(reader, certificate, key);
    let is_secure = |(url, _): &&(String, ByteSpan)| url.starts_with(HTTPS_SCHEME);
    match (&authorities, endpoints.iter().find(is_secure)) {
        (None, Some((_, span))) => {
            let message = "`https` without `ca_file`".to_owned();
            let problem = ConfigProblem::at_span(span.clone(), message, "over TLS");
            let help = "name the certificate of the authority that signed the servers'";
            reader.report_problem(problem.with_help(help));
        }
        (Some(_), _) if !endpoints.iter().all(|endpoint| is_secure(&endpoint)) => {
            let plain = endpoints.iter().find(|endpoint| !is_secure(endpoint));
            if let Some((_, span)) = plain {
                let message = "`ca_file` with an endpoint in the clear".to_owned();
                let problem = ConfigProblem::at_span(span.clone(), message, "no TLS");
                reader.report_problem(problem.with_help("write `https://` at every endpoint"));
            }
        }
        _ => {}
    }
    if let (None, Some(span)) = (&authorities, given) {
        let message = "a certificate for etcd without `ca_file`".to_owned();
        reader.report_problem(ConfigProblem::at_span(span, message, "needs `ca_file`"));
    }
    authorities.map(|(authorities, _)| EtcdTls { authorities, client })
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

/// The URL of a server: scheme, host and port.
fn parse_endpoint(text: &str) -> Result<String, String> {
    let text = text.strip_suffix('/').unwrap_or(text);
    let rest = text.strip_prefix(HTTPS_SCHEME).or_else(|| text.strip_prefix("http://"));
    let rest = rest.ok_or("it starts with neither `http://` nor `https://`")?;
    let (host, port) = rest.rsplit_once(':').ok_or("it has no port")?;
    if !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err("its port is no number from 1 to 65535".to_owned());
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    match !host.is_empty() && host.chars().all(is_name) {
        true => Ok(text.to_owned()),
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
            ("http://10.1.0.5:2379", "http://10.1.0.5:2379"),
            ("https://etcd-1.example:2379/", "https://etcd-1.example:2379"),
            ("http://[fd00::5]:2379", "http://[fd00::5]:2379"),
        ] {
            assert_eq!(parse_endpoint(text).unwrap(), expected);
        }
        for (text, word) in [
            ("10.1.0.5:2379", "http://"),
            ("http://10.1.0.5", "no port"),
            ("http://10.1.0.5:0", "port"),
            ("http://user@host:2379", "host"),
        ] {
            assert!(parse_endpoint(text).unwrap_err().contains(word), "{text}");
        }
        let read = |text: &str| {
            let mut reader = FieldReader::default();
            let config = read_etcd(&mut reader, &toml::from_str(text).unwrap());
            match reader.problems.first() {
                Some(problem) => Err(format!("{problem:?}")),
                None => Ok(config.tls),
            }
        };
        let (secure, plain) = ("endpoints = [\"https://a:1\"]\n", "endpoints = [\"http://a:1\"]\n");
        let authority = "ca_file = \"/ca\"\n";
        let tls = read(&format!("{secure}{authority}")).unwrap().unwrap();
        assert_eq!((tls.authorities, tls.client), ("/ca".into(), None));
        let client = "certificate_file = \"/c\"\nkey_file = \"/k\"\n";
        let tls = read(&format!("{secure}{authority}{client}")).unwrap().unwrap();
        assert_eq!(tls.client.unwrap().key, std::path::PathBuf::from("/k"));
        for (text, word) in [
            (secure.to_owned(), "without `ca_file`"),
            (format!("{plain}{authority}"), "in the clear"),
            (format!("{plain}{client}"), "a certificate for etcd without `ca_file`"),
            (format!("{secure}{authority}key_file = \"/k\"\n"), "`certificate_file` is missing"),
        ] {
            let refused = read(&text).unwrap_err();
            assert!(refused.contains(word), "{text}: {refused}");
        }
        assert!(parse_prefix("/netft").is_err() && parse_prefix("/a b/").is_err());
    }
}
