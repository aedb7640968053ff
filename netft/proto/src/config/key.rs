//! A key of `netft.toml`: its place, syntax, default, effect and one sentence about it.

use std::fmt;

use crate::config::limits::NumberLimits;

/// A key of `netft.toml`.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigKey {
    /// Dotted path, such as `adapter.mtu`; the last part is the key itself.
    pub path: &'static str,
    /// Values it takes.
    pub syntax: KeySyntax,
    /// Value when it is left out.
    pub default: KeyDefault,
    /// When a change of it takes effect.
    pub effect: ChangeEffect,
    /// One or two sentences for the reference.
    pub doc: &'static str,
    /// A value, as TOML, that differs from the default.
    pub example: &'static str,
}

impl ConfigKey {
    /// The key as it stands in its table.
    pub fn name(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, name)| name)
    }

    /// Dotted path of its table.
    pub fn table(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(table, _)| table)
    }

    /// Range of the whole numbers it takes, if it takes any.
    pub const fn limits(&self) -> Option<NumberLimits> {
        match self.syntax {
            KeySyntax::Number(limits) | KeySyntax::NumberOrText(limits, _) => Some(limits),
            KeySyntax::Choice(_)
            | KeySyntax::Text(_)
            | KeySyntax::SecretFile(_)
            | KeySyntax::PublicFile(_)
            | KeySyntax::TextList(_)
            | KeySyntax::Command(_)
            | KeySyntax::TextOrList(_)
            | KeySyntax::Flag => None,
        }
    }
}

/// Values a key takes. Displayed as an error says it: "`mtu` is … , not 7".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySyntax {
    /// A whole number.
    Number(NumberLimits),
    /// A whole number, or a text described here.
    NumberOrText(NumberLimits, &'static str),
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// A text described here.
    Text(&'static str),
    /// The path, described here, of a file that holds a secret: no report may contain it.
    SecretFile(&'static str),
    /// The path, described here, of a file without a secret.
    PublicFile(&'static str),
    /// A list of texts described here.
    TextList(&'static str),
    /// The list of a command's words, described here. Its arguments may be secrets.
    Command(&'static str),
    /// One text described here, or a list of them.
    TextOrList(&'static str),
    /// `true` or `false`.
    Flag,
}

impl fmt::Display for KeySyntax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(limits) => limits.fmt(f),
            Self::NumberOrText(_, text)
            | Self::Text(text)
            | Self::SecretFile(text)
            | Self::PublicFile(text)
            | Self::TextList(text)
            | Self::Command(text)
            | Self::TextOrList(text) => f.write_str(text),
            Self::Choice(words) => {
                for (place, word) in words.iter().enumerate() {
                    let before = match place {
                        0 => "",
                        _ if place + 1 == words.len() => " or ",
                        _ => ", ",
                    };
                    write!(f, "{before}`{word}`")?;
                }
                Ok(())
            }
            Self::Flag => f.write_str("`true` or `false`"),
        }
    }
}

/// Value of a key that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyDefault {
    /// None: the key must be there.
    Required,
    /// This number.
    Number(u64),
    /// This text.
    Text(&'static str),
    /// This flag.
    Flag(bool),
    /// As described here.
    Described(&'static str),
}

/// When a change takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeEffect {
    /// With `netft reload`.
    Live,
    /// With a restart of netftd; a reload is refused whole.
    Restart,
}

/// A table of `netft.toml`.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigTable {
    /// Dotted path, such as `peer.class`.
    pub path: &'static str,
    /// Written `[[path]]`, any number of times; else `[path]`, once.
    pub repeated: bool,
    /// One or two sentences for the reference.
    pub doc: &'static str,
}
