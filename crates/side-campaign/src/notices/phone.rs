//! Telephone numbers in one form: `+` and 8-15 digits, as E.164 has them.

/// The number in its one form; `None` if it is none. Spaces, hyphens and parentheses are left out, `00` is read as `+`, and
/// the eleven digits of a Chinese mobile number get their `+86`.
pub(super) fn normal(text: &str) -> Option<String> {
    if text.len() > 40 {
        return None;
    }
    let plain: String = text
        .chars()
        .filter(|character| !matches!(character, ' ' | '-' | '(' | ')'))
        .collect();
    let digits = match plain.strip_prefix('+').or_else(|| plain.strip_prefix("00")) {
        Some(digits) => digits.to_owned(),
        None if plain.len() == 11 && plain.starts_with('1') => format!("86{plain}"),
        None => return None,
    };
    let is_number = (8..=15).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && !digits.starts_with('0');
    is_number.then(|| format!("+{digits}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_form() {
        for (text, expected) in [
            ("13800138000", Some("+8613800138000")),
            ("138-0013-8000", Some("+8613800138000")),
            ("+86 138 0013 8000", Some("+8613800138000")),
            ("008613800138000", Some("+8613800138000")),
            ("+1 (415) 555-0100", Some("+14155550100")),
            ("+12345678", Some("+12345678")),
            ("+123456789012345", Some("+123456789012345")),
            ("+1234567", None),
            ("+1234567890123456", None),
            ("+0123456789", None),
            ("23800138000", None),
            ("1380013800", None),
            ("+86138001380a0", None),
            ("+８６13800138000", None),
            ("", None),
            ("+", None),
        ] {
            assert_eq!(normal(text).as_deref(), expected, "{text}");
        }
    }
}
