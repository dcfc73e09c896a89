//! How key files read back, and which are refused.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn token(text: &str) -> Result<u8, String> {
    let parsed = parse_secret(Kind::Token, Path::new("keys/token.key"), text.as_bytes());
    parsed.map(|(kid, key)| kid.get() + key[0]).map_err(|error| error.to_string())
}

#[test]
fn text_reads_back_and_says_what_it_is() {
    let text = render(Kind::Token, NonZeroU8::new(7).unwrap(), &[3; 32]);
    assert!(text.starts_with("masq-token-key-v1 kid=7\n# Makes the tokens"), "{}", *text);
    assert_eq!(token(&text), Ok(10));
    assert_eq!(token(&text.replace('\n', "\r\n")), Ok(10));
    assert_eq!(token(&format!("# a note\n\n{}", text.trim_end())), Ok(10));
}

#[test]
fn complaint_names_file_and_problem_and_no_content() {
    let text = render(Kind::Token, NonZeroU8::MIN, &[3; 32]);
    let key = BASE64_STANDARD.encode([3; 32]);
    for (text, problem) in [
        (String::new(), "it is empty"),
        (text.replace("token-key", "subject-key"), "its first line names another kind"),
        (text.replace("v1", "v2"), "its first line names another kind"),
        (text.replace(" kid=1", ""), "its first line has no key id"),
        (text.replace("kid=1", "kid=0"), "its key id is not between 1 and 255"),
        (text.replace("kid=1", "kid=256"), "its key id is not between 1 and 255"),
        (text.replace(&key, ""), "the key is missing"),
        (format!("{}{key}", *text), "something follows the key"),
        (text.replace(&key, &key.replace('=', "?")), "the key is not base64"),
        (text.replace(&key, "AwMD"), "the key has not 32 bytes"),
    ] {
        let expected = format!("keys/token.key is not the key file it should be ({problem}): restore it from a copy");
        assert_eq!(token(&text), Err(expected));
    }
}

#[test]
fn a_verifier_key_reads_back_with_what_stands_around_it_and_alone() {
    let key = crate::vault::audit::checkpoint::Signer::new(&[7; 32]).public().clone();
    let read = |text: &str| parse_verifier(Path::new("audit.pub"), text.as_bytes()).ok();
    assert_eq!(read(&render_verifier(&key)), Some(key.clone()));
    assert_eq!(read(&format!("{key}\r\n")), Some(key.clone()));
    for bad in [String::new(), format!("{key}\n{key}"), format!("x{key}"), "masq-audit-public-key-v1\n".to_owned()] {
        assert_eq!(read(&bad), None, "{bad}");
    }
}

#[test]
fn a_directory_is_no_key_file_whatever_its_permissions() {
    let dir = tempfile::tempdir().unwrap();
    for mode in [0o700, 0o755] {
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
        let said = read(Kind::Token, dir.path()).unwrap_err().to_string();
        assert!(said.contains("(it is a directory)"), "{said}");
    }
}

#[test]
fn open_permissions_are_refused_through_links_too() {
    let dir = tempfile::tempdir().unwrap();
    let (file, link) = (dir.path().join("file"), dir.path().join("link"));
    fs::write(&file, "text").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let refused = |kind, mode| {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        matches!(read(kind, &link), Err(KeyError::Exposed { .. }))
    };
    for mode in [0o400, 0o600, 0o440, 0o640, 0o700] {
        assert!(!refused(Kind::Token, mode), "{mode:o}");
    }
    for mode in [0o404, 0o402, 0o420, 0o660, 0o644, 0o444, 0o777] {
        assert!(refused(Kind::Token, mode), "{mode:o}");
    }
    assert!(!refused(Kind::RecoveryPublic, 0o444));
    assert!(refused(Kind::RecoveryPublic, 0o464));
    assert!(refused(Kind::RecoveryPublic, 0o446));
}

#[test]
fn exposure_is_said_with_its_remedy() {
    let said = |kind, mode| check_mode(kind, Path::new("k"), mode).unwrap_err().to_string();
    assert_eq!(said(Kind::Token, 0o644), "k has mode 0644, which lets others read it: run `chmod 0400 k`");
    assert_eq!(said(Kind::Subject, 0o460), "k has mode 0460, which lets others change it: run `chmod 0400 k`");
    let public = "k has mode 0666, which lets others change it: run `chmod 0444 k`";
    assert_eq!(said(Kind::RecoveryPublic, 0o666), public);
}
