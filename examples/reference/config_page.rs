//! netft.toml(5), from the table of keys.

use std::fmt::Write;

use netft::config::{
    ChangeEffect, ConfigKey, KeyDefault, KeySyntax,
    keys::{CONFIG_KEYS, CONFIG_TABLES},
};

const INTRODUCTION: &str = "\
netftd reads its configuration from a TOML file. An unknown key, a key that stands twice, a wrong \
type and a value out of range are refused with file, line and column. `netftd --check FILE` checks \
a file; `netft init` writes a first one.";

const CHANGES: &str = "\
`netft reload`, `systemctl reload netftd` and SIGHUP apply the file whole or not at all. A key \
whose change needs a restart says so; a reload that changes one is refused.";

/// The page.
pub(crate) fn render_page(source: &str) -> String {
    let mut page = format!(".TH NETFT.TOML 5 \"\" \"{source}\" \"netft\"\n.SH NAME\n");
    page += "netft.toml \\- configuration of netftd\n.SH SYNOPSIS\n/etc/netft/netft.toml\n";
    let _ = write!(page, ".SH DESCRIPTION\n{}\n.PP\n{}\n", roff(INTRODUCTION), roff(CHANGES));
    for table in CONFIG_TABLES {
        let (open, close) = if table.repeated { ("[[", "]]") } else { ("[", "]") };
        let _ = writeln!(page, ".SH \"{open}{}{close}\"", roff(table.path));
        let _ = writeln!(page, "{}", roff(table.doc));
        for key in CONFIG_KEYS.iter().filter(|key| key.table() == table.path) {
            write_key(&mut page, key);
        }
    }
    page += ".SH FILES\n.TP\n/etc/netft/key\nPrivate key of the node, mode 0600.\n";
    page += ".SH SEE ALSO\n.BR netft (1),\n.BR netft\\-init (1),\n.BR netftd (8)\n";
    page
}

fn write_key(page: &mut String, key: &ConfigKey) {
    let _ = write!(page, ".TP\n\\fB{}\\fR = {}\n", roff(key.name()), roff(&value_text(key)));
    let _ = writeln!(page, "{}", roff(key.doc));
    let default = match key.default {
        KeyDefault::Required => "Required.".to_owned(),
        KeyDefault::Number(number) => format!("Default: {number}."),
        KeyDefault::Text(text) => format!("Default: \"{text}\"."),
        KeyDefault::Flag(flag) => format!("Default: {flag}."),
        KeyDefault::Described(text) => format!("Default: {text}."),
    };
    let effect = match key.effect {
        ChangeEffect::Live => "",
        ChangeEffect::Restart => " A change needs a restart.",
    };
    let example = format!("Example: {} = {}", key.name(), key.example);
    let _ = writeln!(page, "{}{effect}\n.br\n{}", roff(&default), roff(&example));
}

fn value_text(key: &ConfigKey) -> String {
    match key.syntax {
        KeySyntax::Number(_) | KeySyntax::Choice(_) | KeySyntax::Flag => key.syntax.to_string(),
        KeySyntax::Text(text)
        | KeySyntax::SecretFile(text)
        | KeySyntax::PublicFile(text)
        | KeySyntax::NumberOrText(_, text) => text.to_owned(),
        KeySyntax::TextList(text) | KeySyntax::Command(text) => format!("list, each {text}"),
        KeySyntax::TextOrList(text) => format!("{text}, or a list of two"),
    }
}

/// `text` for roff: a backslash, a hyphen and a leading control character mean themselves, and
/// what stands between backticks is bold.
fn roff(text: &str) -> String {
    let mut out = String::new();
    let mut is_code = false;
    for c in text.chars() {
        match c {
            '\\' => out += "\\e",
            '-' => out += "\\-",
            '`' => {
                is_code = !is_code;
                out += if is_code { "\\fB" } else { "\\fR" };
            }
            other => out.push(other),
        }
    }
    if out.starts_with(['.', '\'']) { format!("\\&{out}") } else { out }
}
