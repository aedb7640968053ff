//! Removal of secrets from texts that leave this machine. Pure.

/// Stands for a secret.
const REMOVED_TEXT: &str = "[removed]";
/// Shortest line of a secret file that is looked for: a shorter text occurs by chance.
const MIN_SECRET_LEN: usize = 8;
/// Shortest part of such a line.
const MIN_PART_LEN: usize = 12;
/// Ends of the names of keys whose value is a secret, wherever they stand.
const SECRET_NAMES: [&str; 9] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "psk",
    "private_key",
    "private-key",
    "api_key",
];

/// The secrets of this node.
#[derive(Default)]
pub struct SecretScrubber {
    /// Longest first: one may contain another.
    secrets: Vec<String>,
    /// Words of commands in the configuration, as they stand between its quotes.
    words: Vec<String>,
}

impl SecretScrubber {
    /// Takes the content of a secret file: each of its lines, and the words in them, as a key file
    /// (`netft-key:…`), a TSIG key (`secret "…";`) or a file of `NAME=value` holds them.
    pub fn add_secret_file(&mut self, content: &str) {
        for line in content.lines().map(str::trim) {
            // The frame of a PEM file is no secret.
            if line.starts_with("-----") {
                continue;
            }
            self.add_text(line, MIN_SECRET_LEN);
            let is_between = |c: char| c.is_whitespace() || "\"'`;:,(){}".contains(c);
            for word in line.split(is_between) {
                self.add_text(word, MIN_PART_LEN);
                let value = word.split_once('=').map_or("", |(_, value)| value);
                self.add_text(value, MIN_PART_LEN);
            }
        }
    }

    /// Takes a word of the configuration: a short one is removed there, a long one everywhere.
    pub fn add_word(&mut self, word: &str) {
        self.add_text(word, MIN_PART_LEN);
        let value = word.split_once('=').map_or("", |(_, value)| value);
        self.add_text(value, MIN_PART_LEN);
        if !word.is_empty() {
            self.words.push(json_text(word));
        }
    }

    /// Takes the user and the query of each URL in a value of the configuration.
    pub fn add_urls(&mut self, value: &str) {
        for (_, after) in
            value.match_indices("://").map(|(at, sign)| value.split_at(at + sign.len()))
        {
            let url = UrlParts::split(after);
            let password = url.user.and_then(|user| user.split_once(':')).map(|(_, it)| it);
            url.user.into_iter().chain(password).for_each(|it| self.add_text(it, MIN_SECRET_LEN));
            for parameter in url.query.trim_start_matches('?').split('&') {
                let value = parameter.split_once('=').map_or(parameter, |(_, value)| value);
                self.add_text(value, MIN_SECRET_LEN);
            }
        }
    }

    /// Takes a text of at least `min_len` bytes, as it is and as it stands in JSON and TOML.
    fn add_text(&mut self, text: &str, min_len: usize) {
        if text.len() < min_len {
            return;
        }
        let escaped = json_text(text);
        if escaped != text {
            self.secrets.push(escaped);
        }
        self.secrets.push(text.to_owned());
        self.secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    }

    /// The configuration's text, as [`Self::scrub_text`] and without the words of commands.
    pub fn scrub_config(&self, text: &str) -> String {
        let mut scrubbed = text.to_owned();
        for word in &self.words {
            for quote in ['"', '\''] {
                let quoted = format!("{quote}{word}{quote}");
                scrubbed = scrubbed.replace(&quoted, &format!("{quote}{REMOVED_TEXT}{quote}"));
            }
        }
        self.scrub_text(&scrubbed)
    }

    /// A text without the secrets, without PEM private keys, without the values of keys that are
    /// called as secrets are, and without what only its reader needs of a URL.
    pub fn scrub_text(&self, text: &str) -> String {
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
                out += &scrub_urls(&scrub_assignments(line));
            }
            is_in_key &= !ends;
        }
        out
    }
}

/// A text as it stands between the quotes of JSON.
fn json_text(text: &str) -> String {
    let quoted = serde_json::to_string(text).unwrap_or_default();
    quoted.trim_start_matches('"').strip_suffix('"').unwrap_or_default().to_owned()
}

/// A line without the values after names that end as those of secrets do: `name = value`,
/// `"name":"value"`, `name: value`.
fn scrub_assignments(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(['=', ':']) {
        let (before, after) = rest.split_at(at);
        let (sign, value) = after.split_at(1);
        out += before;
        out += sign;
        rest = value;
        if !is_secret_name(before) {
            continue;
        }
        let value = rest.trim_start_matches(' ');
        out += &rest[..rest.len() - value.len()];
        // The second sign of `==`, the slashes of a URL, a value that is removed, and none.
        let is_over = value.starts_with(REMOVED_TEXT) || value.trim_end().is_empty();
        if is_over || value.starts_with('=') || value.starts_with("//") {
            rest = value;
            continue;
        }
        let len = value_len(value, before.ends_with('"'));
        out += REMOVED_TEXT;
        rest = &value[len..];
    }
    out + rest
}

fn is_secret_name(before: &str) -> bool {
    let bare = before.trim_end().trim_end_matches(['"', '\'']);
    let name = bare.rsplit(|c: char| !c.is_ascii_alphanumeric() && !"_-".contains(c)).next();
    let name = name.unwrap_or_default().to_ascii_lowercase();
    SECRET_NAMES.iter().any(|secret| name.ends_with(secret))
}

/// Bytes of a value: a quoted text, an item of JSON, or the rest of the line.
fn value_len(value: &str, is_json: bool) -> usize {
    if let Some(quote) = value.chars().next().filter(|first| "\"'".contains(*first)) {
        let mut is_escaped = false;
        for (at, c) in value.char_indices().skip(1) {
            match c {
                '\\' if quote == '"' => is_escaped = !is_escaped,
                c if c == quote && !is_escaped => return at + 1,
                _ => is_escaped = false,
            }
        }
    }
    let end = if is_json { value.find([',', '}', ']']) } else { None };
    end.unwrap_or(value.trim_end().len())
}

/// A URL after its `://`.
struct UrlParts<'t> {
    /// User and password.
    user: Option<&'t str>,
    /// Host, port and path.
    place: &'t str,
    /// Query with its `?`, or nothing.
    query: &'t str,
    /// Text behind the URL.
    after: &'t str,
}

impl<'t> UrlParts<'t> {
    fn split(text: &'t str) -> Self {
        let is_end = |c: char| c.is_whitespace() || "\"'`<>(){},|".contains(c);
        let (url, after) = text.split_at(text.find(is_end).unwrap_or(text.len()));
        let (address, query) = url.split_at(url.find('?').unwrap_or(url.len()));
        let host = &address[..address.find('/').unwrap_or(address.len())];
        match host.rfind('@') {
            Some(at) => {
                let (user, place) = (Some(&address[..at]), &address[at + 1..]);
                Self { user, place, query, after }
            }
            None => Self { user: None, place: address, query, after },
        }
    }
}

/// A line whose URLs have neither user nor query.
fn scrub_urls(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (before, url) = rest.split_at(at + 3);
        let UrlParts { user, place, query, after } = UrlParts::split(url);
        out += before;
        if user.is_some() {
            out += &format!("{REMOVED_TEXT}@");
        }
        out += place;
        if !query.is_empty() {
            out += &format!("?{REMOVED_TEXT}");
        }
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_removed_wherever_they_stand() {
        let mut scrubber = SecretScrubber::default();
        scrubber.add_secret_file("netft-key:MFECAQEwBQYDK2VwBCIEIA\n");
        scrubber.add_secret_file("-----BEGIN PRIVATE KEY-----\nab0123456789cdefGSM4\n-----END\n");
        scrubber.add_secret_file("key \"ns1\" {\n  secret \"dHNpZy1zZWNyZXQ=\";\n};\n");
        scrubber.add_secret_file("say \"hello\"\nshort\n");
        scrubber.add_word("--level=fast");
        scrubber.add_word("up");
        let config = scrubber.scrub_config("['--level=fast', \"up\"] # up\n");
        assert_eq!(config, "['[removed]', \"[removed]\"] # up\n");
        for (text, expected) in [
            ("key MFECAQEwBQYDK2VwBCIEIA.", "key [removed]."),
            ("netft-key:MFECAQEwBQYDK2VwBCIEIA\n", "[removed]\n"),
            ("a\"ab0123456789cdefGSM4\"", "a\"[removed]\""),
            ("x dHNpZy1zZWNyZXQ= y", "x [removed] y"),
            (r#"{"text":"say \"hello\""}"#, r#"{"text":"[removed]"}"#),
            ("a short line\n", "a short line\n"),
            (r#"{"state":"up"}"#, r#"{"state":"up"}"#),
            ("secrets = 1\ntoken = [\"a\"]\n", "secrets = 1\ntoken = [removed]\n"),
            ("# password = \"x\"\nname = \"a\"\n", "# password = [removed]\nname = \"a\"\n"),
            ("key = \"key\"\npsk=1", "key = \"key\"\npsk=[removed]"),
            ("# etcd password: correct horse\n", "# etcd password: [removed]\n"),
            (r#"{"a_token":"x\"y","b":1}"#, r#"{"a_token":[removed],"b":1}"#),
            (r#"{"token":null,"b":1}"#, r#"{"token":[removed],"b":1}"#),
            ("token_file = \"t\"\nport: 1\n", "token_file = \"t\"\nport: 1\n"),
            ("\"http://u:p@10.1.0.1:80/x?t=1\"", "\"http://[removed]@10.1.0.1:80/x?[removed]\""),
            ("see http://10.1.0.1/a@b\n", "see http://10.1.0.1/a@b\n"),
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
