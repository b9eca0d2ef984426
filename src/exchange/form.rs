//! Form: the text fields of a `multipart/form-data` body (RFC 7578), such as an upload's `model`; files are passed over.
//!
//! Reads a body that is in memory, all of it or its beginning, and copies nothing of it. Knows no API.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use memchr::memmem;

/// The most fields that are read of one form.
const MAX_FIELDS: usize = 64;

/// What separates the parts of a form with this head; `None` if it is none.
pub fn boundary(headers: &HeaderMap) -> Option<&str> {
    let (essence, parameters) = headers.get(CONTENT_TYPE)?.to_str().ok()?.split_once(';')?;
    if !essence.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("boundary="))?;
    Some(boundary.trim_matches('"')).filter(|boundary| !boundary.is_empty())
}

/// The name and the text of each field that is no file and whose end is there.
pub fn fields<'a>(body: &'a [u8], boundary: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let delimiter = format!("--{boundary}");
    let starts: Vec<usize> = memmem::find_iter(body, &delimiter).take(MAX_FIELDS + 1).collect();
    let parts: Vec<_> = starts.windows(2).map(|pair| &body[pair[0] + delimiter.len()..pair[1]]).collect();
    parts.into_iter().filter_map(field)
}

/// The name and the text of one part: a line end, its head, a blank line, its content and another line end.
fn field(part: &[u8]) -> Option<(&str, &str)> {
    let (head, content) = part.split_at(memmem::find(part, b"\r\n\r\n")?);
    let text = std::str::from_utf8(content[4..].strip_suffix(b"\r\n")?).ok()?;
    let head = std::str::from_utf8(head).ok()?;
    let is_disposition = |name: &str| name.trim().eq_ignore_ascii_case("content-disposition");
    let (_, disposition) =
        head.lines().filter_map(|line| line.split_once(':')).find(|(name, _)| is_disposition(name))?;
    let mut parameters = disposition.split(';').map(str::trim);
    if parameters.clone().any(|parameter| parameter.starts_with("filename")) {
        return None;
    }
    let name = parameters.find_map(|parameter| parameter.strip_prefix("name="))?;
    Some((name.trim_matches('"'), text))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const FORM: &[u8] = b"--b0\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n\
        --b0\r\ncontent-disposition: form-data; name=\"prompt\"\r\nContent-Type: text/plain\r\n\r\ntwo\r\nlines\r\n\
        --b0\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model; name=.mp3\"\r\n\r\n\xff\x00\r\n\r\n\r\n\
        --b0\r\nContent-Disposition: form-data; name=stream\r\n\r\ntrue\r\n--b0--\r\n";

    #[test]
    fn text_fields_are_read_and_files_passed_over() {
        let found: Vec<_> = fields(FORM, "b0").collect();
        assert_eq!(found, [("model", "whisper-1"), ("prompt", "two\r\nlines"), ("stream", "true")]);
    }

    #[test]
    fn of_a_beginning_only_what_is_complete_is_read() {
        let whole = fields(FORM, "b0").count();
        for length in 0..FORM.len() {
            let found: Vec<_> = fields(&FORM[..length], "b0").collect();
            assert!(found.iter().all(|field| fields(FORM, "b0").any(|known| known == *field)), "{length}: {found:?}");
            assert!(found.len() <= whole);
        }
        assert_eq!(fields(&FORM[..100], "b0").next(), Some(("model", "whisper-1")));
    }

    #[test]
    fn what_is_no_form_has_no_fields() {
        for body in
            [&b""[..], b"--", b"{\"model\":\"a\"}", b"--b0--b0--b0", b"--b0\r\n\r\n--b0", b"--b0\r\n\r\n\r\n--b0"]
        {
            assert_eq!(fields(body, "b0").next(), None, "{body:?}");
        }
        let many = [b"--b0\r\ncontent-disposition: a; name=n\r\n\r\nv\r\n".repeat(100), b"--b0--".to_vec()].concat();
        assert_eq!(fields(&many, "b0").count(), MAX_FIELDS);
    }

    #[test]
    fn the_content_type_says_what_separates_the_parts() {
        for (content_type, expected) in [
            ("multipart/form-data; boundary=b0", Some("b0")),
            ("Multipart/Form-Data; charset=utf-8; boundary=\"b0\"", Some("b0")),
            ("multipart/form-data; boundary=", None),
            ("multipart/form-data", None),
            ("multipart/mixed; boundary=b0", None),
            ("application/json; boundary=b0", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            assert_eq!(boundary(&headers), expected, "{content_type}");
        }
        assert_eq!(boundary(&HeaderMap::new()), None);
    }
}
