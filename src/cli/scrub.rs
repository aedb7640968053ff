//! Removal of secrets from texts that leave this machine. Pure.

/// Stands for a secret.
const REMOVED_TEXT: &str = "[removed]";
/// Shortest secret that is looked for: a shorter text occurs by chance.
const MIN_SECRET_LEN: usize = 12;
/// Names of keys whose value is a secret, wherever they stand.
const SECRET_NAMES: [&str; 5] = ["password", "passwd", "secret", "psk", "private_key"];

/// The secrets of this node.
#[derive(Default)]
pub(super) struct SecretScrubber {
    /// Longest first: one may contain another.
    secrets: Vec<String>,
}

impl SecretScrubber {
    /// Takes the content of a secret file: each of its lines, and what follows a prefix such as
    /// `netft-key:`.
    pub(super) fn add_secret_file(&mut self, content: &str) {
        for line in content.lines().map(str::trim) {
            // The frame of a PEM file is no secret.
            if line.starts_with("-----") {
                continue;
            }
            let parts = [Some(line), line.split_once(':').map(|(_, rest)| rest.trim())];
            for part in parts.into_iter().flatten().filter(|it| it.len() >= MIN_SECRET_LEN) {
                self.secrets.push(part.to_owned());
            }
        }
        self.secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    }

    /// A text without the secrets, without PEM private keys, and without the values of keys that
    /// are called as secrets are.
    pub(super) fn scrub_text(&self, text: &str) -> String {
        let mut scrubbed = text.to_owned();
        for secret in &self.secrets {
            scrubbed = scrubbed.replace(secret, REMOVED_TEXT);
        }
        let mut out = String::with_capacity(scrubbed.len());
        let mut is_in_key = false;
        for line in scrubbed.split_inclusive('\n') {
            let (begins, ends) = (line.contains("-----BEGIN "), line.contains("-----END "));
            if begins && line.contains("PRIVATE KEY-----") {
                is_in_key = true;
                out += REMOVED_TEXT;
                out.push('\n');
            } else if !is_in_key {
                out += &scrub_assignment(line);
            }
            is_in_key &= !ends;
        }
        out
    }
}

/// A line `name = value` without its value if the name is that of a secret.
fn scrub_assignment(line: &str) -> String {
    let Some((name, value)) = line.split_once('=') else { return line.to_owned() };
    let bare = name.trim_matches(|c: char| c.is_whitespace() || "#\"'".contains(c));
    let is_secret = SECRET_NAMES.iter().any(|secret| bare.eq_ignore_ascii_case(secret));
    let end = &value[value.trim_end().len()..];
    if is_secret { format!("{name}= {REMOVED_TEXT}{end}") } else { line.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_removed_wherever_they_stand() {
        let mut scrubber = SecretScrubber::default();
        scrubber.add_secret_file("netft-key:MFECAQEwBQYDK2VwBCIEIA\n");
        scrubber.add_secret_file("-----BEGIN PRIVATE KEY-----\nab0123456789cdefGSM4\n-----END\n");
        scrubber.add_secret_file("short\n");
        for (text, expected) in [
            ("key MFECAQEwBQYDK2VwBCIEIA.", "key [removed]."),
            ("netft-key:MFECAQEwBQYDK2VwBCIEIA\n", "[removed]\n"),
            ("a\"ab0123456789cdefGSM4\"", "a\"[removed]\""),
            ("a short line\n", "a short line\n"),
            ("# password = \"x\"\nname = \"a\"\n", "# password = [removed]\nname = \"a\"\n"),
            ("key = \"key\"\npsk=1", "key = \"key\"\npsk= [removed]"),
            (
                "x\n-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\ny\n",
                "x\n[removed]\ny\n",
            ),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            ),
        ] {
            assert_eq!(scrubber.scrub_text(text), expected);
        }
    }
}
