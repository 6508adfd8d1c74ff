//! Numbers as C's `%.*g` prints them, which Lua and Redis use. Knows no Lua.

/// `value` with at most `digits` significant digits.
pub(super) fn general(value: f64, digits: usize) -> String {
    if value.is_nan() {
        return if value.is_sign_negative() { "-nan".into() } else { "nan".into() };
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let digits = digits.max(1);
    let scientific = format!("{value:.*e}", digits - 1);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if exponent < -4 || exponent >= digits as i32 {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trimmed(mantissa), exponent.abs());
    }
    let decimals = (digits as i32 - 1 - exponent).max(0) as usize;
    trimmed(&format!("{value:.decimals$}")).to_owned()
}

/// Without zeros at the end of a fraction.
fn trimmed(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_print_as_in_c() {
        for (value, digits, expected) in [
            (0.0, 14, "0"),
            (-0.0, 14, "-0"),
            (1.0, 17, "1"),
            (1.5, 17, "1.5"),
            (0.1, 14, "0.1"),
            (0.1, 17, "0.10000000000000001"),
            (1.0 / 3.0, 14, "0.33333333333333"),
            (1e15, 14, "1e+15"),
            (1e15, 17, "1000000000000000"),
            (123_456_789_012_345_678.0, 14, "1.2345678901235e+17"),
            (1e100, 14, "1e+100"),
            (1e-5, 14, "1e-05"),
            (0.0001, 14, "0.0001"),
            (9_007_199_254_740_993.0, 17, "9007199254740992"),
            (99_999_999_999_999.9, 14, "1e+14"),
            (f64::NAN, 14, "nan"),
            (f64::NEG_INFINITY, 14, "-inf"),
        ] {
            assert_eq!(general(value, digits), expected);
        }
    }
}
