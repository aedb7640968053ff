//! The key of updates (TSIG, RFC 8945), in the form of BIND's key files (tsig-keygen).

use std::{fs, os::unix::fs::MetadataExt, path::Path, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hickory_proto::rr::{Name, TSigner, rdata::tsig::TsigAlgorithm};

/// Longest key file.
const MAX_KEY_FILE: u64 = 4096;
/// RFC 8945 section 10: tolerated difference of clocks, seconds.
const FUDGE_SECS: u16 = 300;
/// Algorithms by their names in key files.
const TSIG_ALGORITHMS: [(&str, TsigAlgorithm); 3] = [
    ("hmac-sha256", TsigAlgorithm::HmacSha256),
    ("hmac-sha384", TsigAlgorithm::HmacSha384),
    ("hmac-sha512", TsigAlgorithm::HmacSha512),
];

/// Reads a key file.
///
/// # Errors
/// Why it cannot be used, with its path.
pub(super) fn read_key_file(path: &Path) -> Result<TSigner, String> {
    let shown = path.display();
    let meta = fs::metadata(path).map_err(|error| format!("key file {shown}: {error}"))?;
    if !meta.is_file() || meta.len() > MAX_KEY_FILE {
        return Err(format!("key file {shown}: no file of at most {MAX_KEY_FILE} bytes"));
    }
    if meta.mode() & 0o007 != 0 {
        return Err(format!("key file {shown}: others may read it: `chmod o= FILE`"));
    }
    let text = fs::read_to_string(path).map_err(|error| format!("key file {shown}: {error}"))?;
    parse_key(&text).map_err(|why| format!("key file {shown}: {why}"))
}

fn parse_key(text: &str) -> Result<TSigner, String> {
    const KEY_EXAMPLE: &str =
        "write it as `tsig-keygen` does: key \"NAME\" { algorithm hmac-sha256; secret \"...\"; };";
    let words = split_words(text);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let ["key", name, "{", settings @ .., "}", ";"] = &words[..] else {
        return Err(KEY_EXAMPLE.to_owned());
    };
    let (mut algorithm, mut secret) = (None, None);
    for setting in settings.split(|word| *word == ";") {
        match setting {
            [] => {}
            ["algorithm", value] => algorithm = Some(*value),
            ["secret", value] => secret = Some(*value),
            _ => return Err(KEY_EXAMPLE.to_owned()),
        }
    }
    let (Some(algorithm), Some(secret)) = (algorithm, secret) else {
        return Err(KEY_EXAMPLE.to_owned());
    };
    let known = TSIG_ALGORITHMS.iter().find(|(name, _)| name.eq_ignore_ascii_case(algorithm));
    let Some((_, algorithm)) = known else {
        let names: Vec<_> = TSIG_ALGORITHMS.iter().map(|(name, _)| *name).collect();
        return Err(format!("algorithm {algorithm:?} is none of {}", names.join(", ")));
    };
    let secret = STANDARD.decode(secret).map_err(|_| "its secret is no Base64".to_owned())?;
    if secret.is_empty() {
        return Err("its secret is empty".to_owned());
    }
    let name = Name::from_str(name).map_err(|error| format!("its name {name:?}: {error}"))?;
    TSigner::new(secret, algorithm.clone(), name, FUDGE_SECS).map_err(|error| error.to_string())
}

/// Words, `{`, `}` and `;`, without comments and quotes.
fn split_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for line in text.lines() {
        let code = ["//", "#"].iter().fold(line, |code, mark| {
            // Base64 has slashes: a comment begins a line, or follows a space.
            match code.find(mark) {
                Some(0) => "",
                Some(at) if code[..at].ends_with([' ', '\t', ';']) => &code[..at],
                _ => code,
            }
        });
        let spaced = code.replace('{', " { ").replace('}', " } ").replace(';', " ; ");
        words.extend(spaced.split_whitespace().map(|word| word.trim_matches('"').to_owned()));
    }
    words
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_key_file_of_bind_is_read() {
        let text = "# made by hand\nkey \"netft-key\" {\n\talgorithm hmac-sha256;\n\t\
                    secret \"c2VjcmV0Ly8jc2VjcmV0c2VjcmV0\"; // of the zone\n};\n";
        let key = parse_key(text).unwrap();
        assert_eq!(key.signer_name(), &Name::from_str("netft-key.").unwrap());
        assert_eq!(key.key(), b"secret//#secretsecret");
        assert!(parse_key("key k{algorithm HMAC-SHA512;secret c2VjcmV0;};").is_ok());
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, "key k{algorithm hmac-sha256;secret c2VjcmV0;};").unwrap();
        for (mode, is_usable) in [(0o640, true), (0o644, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read_key_file(&path).is_ok(), is_usable, "{mode:o}");
        }
        assert!(read_key_file(folder.path()).is_err(), "a directory");
    }

    #[test]
    fn a_key_that_cannot_be_used_says_why() {
        for (text, words) in [
            ("", "tsig-keygen"),
            ("key k { algorithm hmac-sha256; };", "tsig-keygen"),
            ("key k { algorithm hmac-sha256; secret c2VjcmV0; also this; };", "tsig-keygen"),
            ("key k { algorithm hmac-md5; secret c2VjcmV0; };", "hmac-md5"),
            ("key k { algorithm hmac-sha256; secret !; };", "no Base64"),
            ("key k { algorithm hmac-sha256; secret \"\"; };", "is empty"),
        ] {
            let why = parse_key(text).err().unwrap();
            assert!(why.contains(words), "{text}: {why}");
        }
        let missing = read_key_file(Path::new("/no/such/key")).err().unwrap();
        assert!(missing.contains("/no/such/key"), "{missing}");
    }
}
