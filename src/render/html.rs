//! Pages in HTML: one file each, without scripts and without anything from elsewhere. Pure.

use std::fmt::Write;

use crate::text;

/// Style of every page, for screen and paper.
const PAGE_STYLE: &str = "
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.15rem; margin: 1.8rem 0 .4rem; }
p.about { color: #6b7280; margin: .2rem 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .25rem .7rem .25rem 0; border-bottom: 1px solid #9ca3af55; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.good { color: #15803d; } .warning { color: #b45309; } .bad { color: #dc2626; font-weight: 600; }
.faint { color: #6b7280; }
section.finding { border-left: 4px solid #9ca3af; padding: .1rem 0 .1rem .8rem; margin: .7rem 0;
  break-inside: avoid; }
section.finding.bad { border-color: #dc2626; color: inherit; font-weight: inherit; }
section.finding.warning { border-color: #d97706; color: inherit; }
section.finding p { margin: .15rem 0; } pre { white-space: pre-wrap; margin: .2rem 0; }
svg { max-width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: currentColor; }
@media print { :root { color-scheme: light; } body { margin: 0; max-width: none; } }
";

/// Text as it stands in a page: markup is written out, control characters are escaped.
pub fn escape_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text::escape_lines(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A page. `title` and `about` are text, `body` is markup.
pub fn render_page(title: &str, about: &str, body: &str) -> String {
    let (title, about) = (escape_html(title), escape_html(about));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>{PAGE_STYLE}</style>\n</head>\n<body>\n\
         <h1>{title}</h1>\n<p class=\"about\">{about}</p>\n{body}</body>\n</html>\n"
    )
}

/// A cell of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HtmlCell {
    /// Text.
    pub text: String,
    /// Class of the style sheet; empty for none.
    pub class: &'static str,
}

impl HtmlCell {
    /// A cell of this class.
    pub fn new(text: impl Into<String>, class: &'static str) -> Self {
        Self { text: text.into(), class }
    }
}

/// A table; its cells are text.
pub fn render_table(columns: &[&str], rows: &[Vec<HtmlCell>]) -> String {
    let mut out = "<table>\n<tr>".to_owned();
    // Writing to a String cannot fail.
    for column in columns {
        let _ = write!(out, "<th>{}</th>", escape_html(column));
    }
    out.push_str("</tr>\n");
    for row in rows {
        out.push_str("<tr>");
        for HtmlCell { text, class } in row {
            let _ = write!(out, "<td class=\"{class}\">{}</td>", escape_html(text));
        }
        out.push_str("</tr>\n");
    }
    out + "</table>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_is_text_in_a_page() {
        let name = "<script>alert('b')</script>\x1b[2J";
        let rows = [vec![HtmlCell::new(name, "bad")]];
        let page = render_page(name, name, &render_table(&[name], &rows));
        assert!(!page.contains("<script") && !page.contains('\x1b'), "{page}");
        assert_eq!(page.matches("&lt;script&gt;").count(), 5);
    }
}
