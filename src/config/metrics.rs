//! `[metrics]` of the file: who may read the metrics over TCP.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use netft::config::{ConfigKey, MetricsConfig, TlsFiles, keys};

use super::{
    problem::ConfigProblem,
    raw,
    reader::{ByteSpan, FieldReader},
};

/// Reads the table. What anybody on a network could read in the clear is refused.
pub(super) fn read_metrics(
    reader: &mut FieldReader,
    table: &raw::MetricsTable,
    folder: &Path,
) -> MetricsConfig {
    let listen = reader.parse_text(&table.listen, &keys::METRICS_LISTEN, parse_listen);
    let mut path = |field: &raw::OptionalField, key: &ConfigKey| {
        reader.parse_text(field, key, |text| match text {
            "" => Err("it is empty".to_owned()),
            _ => Ok(folder.join(text)),
        })
    };
    let token = path(&table.token_file, &keys::METRICS_TOKEN_FILE);
    let certificate = path(&table.certificate_file, &keys::METRICS_CERTIFICATE_FILE);
    let key = path(&table.key_file, &keys::METRICS_KEY_FILE);
    let tls = pair_tls_files(reader, certificate, key);
    let open = listen.as_ref().filter(|(at, _)| !at.ip().is_loopback());
    if let Some((at, span)) = open.filter(|_| token.is_none() && tls.is_none()) {
        let message = format!("every host that reaches {at} could read the metrics");
        reader.report_problem(
            ConfigProblem::at_span(span.clone(), message, "not loopback").with_help(
                "add `token_file`, or `certificate_file` and `key_file`; or listen on 127.0.0.1",
            ),
        );
    }
    MetricsConfig { listen: listen.map(|(at, _)| at), token_file: token.map(|(path, _)| path), tls }
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let at: SocketAddr = text.parse().map_err(|_| "no IP address with a port".to_owned())?;
    if at.port() == 0 { Err("port 0 is none".to_owned()) } else { Ok(at) }
}

/// A certificate and its key; one without the other is refused.
pub(super) fn pair_tls_files(
    reader: &mut FieldReader,
    certificate: Option<(PathBuf, ByteSpan)>,
    key: Option<(PathBuf, ByteSpan)>,
) -> Option<TlsFiles> {
    let (span, missing) = match (certificate, key) {
        (None, None) => return None,
        (Some((certificate, _)), Some((key, _))) => return Some(TlsFiles { certificate, key }),
        (Some((_, span)), None) => (span, "key_file"),
        (None, Some((_, span))) => (span, "certificate_file"),
    };
    let message = format!("`{missing}` is missing");
    reader.report_problem(
        ConfigProblem::at_span(span, message, format!("this needs `{missing}`"))
            .with_help("TLS takes a certificate and its private key"),
    );
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn read(text: &str) -> Result<MetricsConfig, String> {
        let table = toml::from_str(text).unwrap();
        let mut reader = FieldReader::default();
        let config = read_metrics(&mut reader, &table, Path::new("/etc/netft"));
        match reader.problems.first() {
            Some(problem) => Err(format!("{problem:?}")),
            None => Ok(config),
        }
    }

    #[test]
    fn metrics_are_in_the_clear_on_loopback_alone() {
        assert_eq!(read("").unwrap(), MetricsConfig::default());
        for loopback in ["127.0.0.1:9343", "127.9.9.9:1", "[::1]:9343"] {
            let found = read(&format!("listen = {loopback:?}")).unwrap();
            assert_eq!(found.listen, Some(loopback.parse().unwrap()));
        }
        for open in ["0.0.0.0:9343", "[::]:9343", "10.1.0.1:9343"] {
            let listen = format!("listen = {open:?}\n");
            let refused = read(&listen).unwrap_err();
            assert!(refused.contains("could read the metrics"), "{refused}");
            let token = read(&(listen.clone() + "token_file = \"token\"")).unwrap();
            assert_eq!(token.token_file, Some("/etc/netft/token".into()));
            let tls = "certificate_file = \"/c\"\nkey_file = \"k\"";
            let tls = read(&(listen + tls)).unwrap().tls.unwrap();
            assert_eq!((tls.certificate, tls.key), ("/c".into(), "/etc/netft/k".into()));
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (text, word) in [
            ("listen = \"localhost:1\"", "no IP address with a port"),
            ("listen = \"127.0.0.1\"", "no IP address with a port"),
            ("listen = \"127.0.0.1:0\"", "port 0"),
            ("token_file = \"\"", "it is empty"),
            ("certificate_file = \"c\"", "`key_file` is missing"),
            ("key_file = \"k\"", "`certificate_file` is missing"),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.contains(word), "{text}: {refused}");
        }
    }
}
