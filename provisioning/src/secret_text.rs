//! The text of a secret file: comment lines that say what it is, then the secret on a line of its own.
//!
//! age reads such files as they are (`age -d -i operations.key`).

use zeroize::Zeroizing;

/// Joins comment lines and the secret.
#[must_use]
pub fn compose(comments: &[&str], secret: &str) -> Zeroizing<String> {
    let bytes = comments.iter().map(|line| line.len() + 3).sum::<usize>() + secret.len() + 1;
    let mut text = Zeroizing::new(String::with_capacity(bytes));
    for line in comments {
        text.push_str("# ");
        text.push_str(line);
        text.push('\n');
    }
    text.push_str(secret);
    text.push('\n');
    text
}

/// Finds the secret: the only line that is neither empty nor a comment.
#[must_use]
pub fn secret_of(text: &str) -> Option<&str> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.next().filter(|_| lines.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the secret comes back, and only when there is exactly one. Method: compose; none; two.
    #[test]
    fn one_secret_line() {
        let text = compose(&["SECRET", "秘密"], "abc");
        assert_eq!(text.as_str(), "# SECRET\n# 秘密\nabc\n");
        assert_eq!(secret_of(&text), Some("abc"));
        assert_eq!(secret_of("# a\n\n"), None);
        assert_eq!(secret_of("abc\ndef\n"), None);
    }
}
