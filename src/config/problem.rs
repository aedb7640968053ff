//! What is wrong with a config file, shown as rustc shows it: file:line:column, the line, a caret,
//! and what to do. Pure.

use std::{fmt, ops::Range, path::PathBuf};

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet, renderer::DecorStyle};

use crate::exit::ExitError;

/// More problems than this in one file are counted, not shown.
const MAX_SHOWN_PROBLEMS: usize = 20;

/// A place in the file, in bytes, and what to say there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceMark {
    /// The bytes.
    pub span: Range<usize>,
    /// Text beside the caret.
    pub label: String,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The mistake, one line.
    pub message: String,
    /// Where: the first is the place itself, the others belong to it.
    pub marks: Vec<SourceMark>,
    /// The remedy.
    pub help: Option<String>,
    /// The file may be right: this user is not allowed to read what it names.
    pub is_denied: bool,
}

impl ConfigProblem {
    /// A problem at one place.
    pub fn at_span(
        span: Range<usize>,
        message: impl Into<String>,
        label: impl Into<String>,
    ) -> Self {
        let mark = SourceMark { span, label: label.into() };
        Self { message: message.into(), marks: vec![mark], help: None, is_denied: false }
    }

    /// Where it stands in the file.
    pub fn start(&self) -> usize {
        self.marks.first().map_or(0, |mark| mark.span.start)
    }

    /// The same, with another place that belongs to it.
    #[must_use]
    pub fn with_mark(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.marks.push(SourceMark { span, label: label.into() });
        self
    }

    /// The same, with what to do about it.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// A config file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// The file itself: missing, not a file, not ours.
    #[error("error: cannot use {}: {reason}\n  = help: {help}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
        /// The remedy.
        help: String,
        /// This user is not allowed to read it.
        is_denied: bool,
    },
    /// Invalid content.
    #[error("{0}")]
    Content(InvalidContent),
}

impl From<ConfigFileError> for ExitError {
    /// A file that this user may not read has no mistake.
    fn from(error: ConfigFileError) -> Self {
        let is_denied = match &error {
            ConfigFileError::File { is_denied, .. } => *is_denied,
            ConfigFileError::Content(content) => {
                content.problems.iter().all(|problem| problem.is_denied)
            }
        };
        if is_denied { Self::bad_environment(error) } else { Self::invalid_input(error) }
    }
}

/// The mistakes in a file that could be read.
#[derive(Debug)]
pub struct InvalidContent {
    /// The file.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
    /// At least one problem.
    pub problems: Vec<ConfigProblem>,
}

impl fmt::Display for InvalidContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let renderer = Renderer::plain().decor_style(DecorStyle::Ascii).term_width(100);
        for (index, problem) in self.problems.iter().take(MAX_SHOWN_PROBLEMS).enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            f.write_str(&self.render_snippet(&renderer, problem))?;
        }
        if let Some(more @ 1..) = self.problems.len().checked_sub(MAX_SHOWN_PROBLEMS) {
            write!(f, "\n\nerror: and {more} more")?;
        }
        Ok(())
    }
}

impl InvalidContent {
    fn render_snippet(&self, renderer: &Renderer, problem: &ConfigProblem) -> String {
        let path = self.path.display().to_string();
        let annotations = problem.marks.iter().enumerate().map(|(index, mark)| {
            let kind = if index == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
            kind.span(self.clamp_to_line(&mark.span)).label(mark.label.as_str())
        });
        let snippet = Snippet::source(self.text.as_str())
            .path(path.as_str())
            .fold(true)
            .annotations(annotations);
        let title = Level::ERROR.primary_title(problem.message.as_str());
        let group = title.element(snippet);
        let report = match &problem.help {
            Some(help) => [group.element(Level::HELP.message(help.as_str()))],
            None => [group],
        };
        renderer.render(&report)
    }

    /// The span, inside the text, on character boundaries and on one line: a caret under a whole
    /// table would hide what it points at.
    fn clamp_to_line(&self, span: &Range<usize>) -> Range<usize> {
        let start = self.text.floor_char_boundary(span.start);
        let line = self.text[start..].find(['\r', '\n']).map_or(self.text.len(), |at| start + at);
        let end = self.text.ceil_char_boundary(span.end.min(line));
        start..end.max(start)
    }
}
