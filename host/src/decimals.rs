//! Numbers as the user reads them.

/// Returns `value` with this number of decimals. A value that rounds to 0 has no sign.
pub fn fixed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    match text.strip_prefix('-') {
        Some(digits) if digits.chars().all(|c| c == '0' || c == '.') => digits.to_owned(),
        _ => text,
    }
}

/// A number with up to four significant digits.
pub fn short(value: f64) -> String {
    let size = value.abs();
    if value.is_nan() {
        "not a number".to_owned()
    } else if size == 0.0 || (1e-3..1e6).contains(&size) {
        let digits = if size >= 100.0 {
            1
        } else if size >= 10.0 {
            2
        } else {
            4
        };
        let text = fixed(value, digits);
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    } else {
        format!("{value:.2e}")
    }
}

/// Returns a share as a percentage, without the digits that rounding adds.
pub fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    let rounded = format!("{percent:.12e}").parse().unwrap_or(percent);
    format!("{rounded}%")
}

/// A number of things, with their noun in the singular for one: "1 row", "2 rows".
pub fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a loss of -0.0000, and a sign that is dropped from a number that keeps a digit.
    #[test]
    fn zero_has_no_sign() {
        let all = [-0.0, -0.00001, -0.00006, 0.0, -1.5].map(|value| fixed(value, 4));
        assert_eq!(all, ["0.0000", "0.0000", "-0.0001", "0.0000", "-1.5000"]);
        assert_eq!((fixed(-0.2, 0).as_str(), fixed(f64::NAN, 4).as_str()), ("0", "NaN"));
        assert_eq!(fixed(f64::NEG_INFINITY, 4), "-inf");
    }

    /// Catches "1 rows".
    #[test]
    fn one_is_singular() {
        assert_eq!([0, 1, 2].map(|count| counted(count, "row")), ["0 rows", "1 row", "2 rows"]);
    }

    /// Catches the rounding of a product that is printed.
    #[test]
    fn percentages_have_no_digits_of_rounding() {
        let all = [1e-6, 0.1, 0.07, 0.0, 1.0 / 3.0].map(percent);
        assert_eq!(all, ["0.0001%", "10%", "7%", "0%", "33.33333333333%"]);
    }

    /// Catches trailing zeros, and a small or large number without its exponent.
    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 0.25, 12.345, 1234.0, 1e-5, 2.5e9, -0.5].map(short);
        assert_eq!(shown, ["0", "0.25", "12.35", "1234", "1.00e-5", "2.50e9", "-0.5"]);
    }
}
