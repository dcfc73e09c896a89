//! Where in a message a value stands: a key, a dotted path, or a JSON Pointer (RFC 6901).

/// Where in a message a value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// As it was written: the name of the field in reasons, and the token's domain.
    pub text: String,
    /// The keys from the outside in. Of a JSON Pointer (RFC 6901), a number may also be an array's index.
    pub segments: Vec<String>,
    /// Whether it was written as a JSON Pointer.
    pub pointer: bool,
}

impl Path {
    /// Reads `from`: text that begins with `/` is a JSON Pointer, all other is split at its dots.
    /// The error is the end of a sentence that begins with the setting's name.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("must not be empty".to_owned());
        }
        // PostgreSQL's text holds no NUL, and the path stands in the reasons of dead letters.
        if text.contains('\0') {
            return Err("must not hold a NUL character".to_owned());
        }
        let (segments, pointer) = match text.strip_prefix('/') {
            Some(rest) => (rest.split('/').map(unescape).collect::<Result<_, _>>()?, true),
            None => (dotted(text)?, false),
        };
        Ok(Self { text: text.to_owned(), segments, pointer })
    }
}

fn dotted(text: &str) -> Result<Vec<String>, String> {
    if text.split('.').any(str::is_empty) {
        return Err("must have a key on both sides of each dot; for a key with dots write a JSON Pointer, \
                    like \"/a.b\""
            .to_owned());
    }
    Ok(text.split('.').map(str::to_owned).collect())
}

/// RFC 6901, section 4: first `~1` is a slash, then `~0` a tilde; nothing else may follow a tilde.
fn unescape(segment: &str) -> Result<String, String> {
    let tildes = segment.matches('~').count();
    if segment.matches("~0").count() + segment.matches("~1").count() != tildes {
        return Err("is not a JSON Pointer: write \"~0\" for a tilde in a key and \"~1\" for a slash".to_owned());
    }
    Ok(segment.replace("~1", "/").replace("~0", "~"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_or_a_pointer() {
        for (text, segments, pointer) in [
            ("ip", &["ip"][..], false),
            ("device.network.ip", &["device", "network", "ip"], false),
            ("a/b", &["a/b"], false),
            ("/a.b/0", &["a.b", "0"], true),
            ("/", &[""], true),
            ("/a//b", &["a", "", "b"], true),
            ("/a~1b/m~0n/~01", &["a/b", "m~n", "~1"], true),
        ] {
            let path = Path::parse(text).unwrap();
            assert_eq!(path.segments, segments, "{text}");
            assert_eq!((path.text.as_str(), path.pointer), (text, pointer));
        }
    }

    #[test]
    fn not_a_path() {
        for (text, error) in [
            ("", "empty"),
            ("a..b", "each dot"),
            (".a", "each dot"),
            ("a.", "each dot"),
            ("/a~", "tilde"),
            ("/~2", "tilde"),
            ("/~~0", "tilde"),
            ("a\0", "NUL"),
        ] {
            assert!(Path::parse(text).unwrap_err().contains(error), "{text:?}");
        }
    }
}
