//! CherryPy's error pages: salt-api answers every 4xx and 503 in HTML, whatever was asked for, and
//! the one useful sentence stands in its `<p>` (CherryPy's `_cperror.py`, `_HTTPErrorTemplate`).

use crate::types::excerpt::one_line;

/// A sentence of salt-api's is no longer, in bytes.
pub const MOST_MESSAGE: usize = 400;

/// The message of an error page on one line, or `None` where there is no such paragraph.
pub fn message(page: &str) -> Option<String> {
    let from = page.find("<p>")? + "<p>".len();
    let to = from + page[from..].find("</p>")?;
    let text = one_line(&unescape(&page[from..to]), MOST_MESSAGE);
    (!text.is_empty()).then_some(text)
}

/// Reads the entities that CherryPy writes.
pub fn unescape(text: &str) -> String {
    // `&amp;` last: what it leaves must not be read as the start of another entity.
    [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#x27;", "'"), ("&#39;", "'"), ("&amp;", "&")]
        .into_iter()
        .fold(text.to_owned(), |text, (entity, plain)| text.replace(entity, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paragraph_is_the_message() {
        let page = "<html><body>\n<h2>401 Unauthorized</h2>\n<p>Could not authenticate using provided credentials</p>\n<pre id=\"traceback\"></pre></body></html>";
        assert_eq!(message(page).as_deref(), Some("Could not authenticate using provided credentials"));
    }

    #[test]
    fn entities_are_read_and_nonsense_has_no_message() {
        assert_eq!(message("<p>Client disabled: &#x27;wheel&#x27; &amp;lt;</p>").as_deref(), Some("Client disabled: 'wheel' &lt;"));
        for page in ["", "<p>", "<p></p>", "</p><p>", "{\"status\": 500}"] {
            assert_eq!(message(page), None, "{page:?}");
        }
    }
}
