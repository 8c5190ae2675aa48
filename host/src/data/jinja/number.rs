//! Numbers as Python writes and computes them.

/// `repr(number)`: the shortest digits that read back as the same number.
pub fn repr(number: f64) -> String {
    if number.is_nan() {
        return "nan".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let fixed = format!("{number}");
        return if fixed.contains('.') { fixed } else { format!("{fixed}.0") };
    }
    format!("{digits}{}", exponent_text(exponent))
}

fn exponent_text(exponent: i32) -> String {
    format!("e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// Fixed, scientific or general notation of a non-negative number, as `%f`, `%e` and `%g` write it. `alternate`
/// keeps the point and the zeros of `%g`.
pub fn notation(number: f64, kind: char, precision: usize, alternate: bool) -> String {
    if number.is_nan() {
        return "nan".into();
    }
    if number.is_infinite() {
        return "inf".into();
    }
    match kind.to_ascii_lowercase() {
        'f' => {
            let point = if alternate && precision == 0 { "." } else { "" };
            format!("{number:.precision$}{point}")
        }
        'e' => {
            let scientific = format!("{number:.precision$e}");
            let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
            let point = if alternate && precision == 0 { "." } else { "" };
            format!("{digits}{point}{}", exponent_text(exponent.parse().unwrap_or(0)))
        }
        _ => general(number, precision.max(1), alternate),
    }
}

fn general(number: f64, precision: usize, alternate: bool) -> String {
    let scientific = format!("{number:.*e}", precision - 1);
    let exponent: i32 = scientific.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0);
    let tidy = |text: &str| {
        if alternate || !text.contains('.') {
            text.to_owned()
        } else {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
    };
    if exponent < -4 || exponent >= precision as i32 {
        let digits = scientific.split_once('e').map_or("", |(digits, _)| digits);
        return format!("{}{}", tidy(digits), exponent_text(exponent));
    }
    tidy(&format!("{number:.*}", (precision as i32 - 1 - exponent).max(0) as usize))
}

/// `round(number, digits)`: rounds half to even, based on the exact value.
pub fn round(number: f64, digits: i128) -> f64 {
    if !number.is_finite() || digits > 300 {
        return number;
    }
    if digits >= 0 {
        return format!("{number:.*}", digits as usize).parse().unwrap_or(number);
    }
    let scale = 10f64.powi(digits.saturating_neg().min(400) as i32);
    if !scale.is_finite() { 0.0 } else { (number / scale).round_ties_even() * scale }
}

/// The quotient rounded down; `None` on overflow.
pub fn floor_div(a: i128, b: i128) -> Option<i128> {
    let quotient = a.checked_div(b)?;
    Some(if a % b != 0 && (a < 0) != (b < 0) { quotient - 1 } else { quotient })
}

/// The remainder with the sign of the divisor.
pub fn modulo(a: i128, b: i128) -> Option<i128> {
    let rest = a.checked_rem(b)?;
    Some(if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest })
}

pub fn float_modulo(a: f64, b: f64) -> f64 {
    let rest = a % b;
    if rest != 0.0 && (rest < 0.0) != (b < 0.0) {
        rest + b
    } else if rest == 0.0 {
        0f64.copysign(b)
    } else {
        rest
    }
}

/// An index, counted from the end if negative; `None` if out of range.
pub fn at(length: usize, place: i128) -> Option<usize> {
    let place = if place < 0 { place.checked_add(length as i128)? } else { place };
    usize::try_from(place).ok().filter(|place| *place < length)
}
