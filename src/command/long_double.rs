//! Decimal text, added as Redis adds it for `INCRBYFLOAT`: in the 80-bit `long double` of x86-64. It knows no commands.
//!
//! Results have the bytes that Redis prints on x86-64, whatever machine this runs on. Hexadecimal numbers, which C reads
//! too, are refused.

use std::fmt::Write as _;

use crate::command::number::split_sign;

/// Longer texts are no numbers (Redis: `MAX_LONG_DOUBLE_CHARS`).
const MAX_TEXT: usize = 5 * 1024;
/// The largest exponent of two of the format.
const MAX_EXPONENT: i32 = 16383;
/// The exponent of two below which numbers are rounded to zero: one less than that of the smallest number.
const MIN_EXPONENT: i32 = -16446;
/// Digits printed after the point.
const FRACTION_DIGITS: usize = 17;
const FRACTION_SCALE: u128 = 10u128.pow(FRACTION_DIGITS as u32);
/// Decimal digits that are handled at a time, and their power of ten.
const CHUNK: usize = 9;
const CHUNK_SCALE: u32 = 10u32.pow(CHUNK as u32);

/// A number that Redis would hold in a `long double`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LongDouble {
    /// `inf` and `-inf` can be written, but no result may be one.
    Infinite,
    /// Any other.
    Finite(Finite),
}

/// `±mantissa × 2^exponent`; the mantissa's highest bit is set, unless the number is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finite {
    negative: bool,
    mantissa: u64,
    exponent: i32,
}

impl LongDouble {
    /// Zero.
    pub const ZERO: Self = Self::Finite(Finite { negative: false, mantissa: 0, exponent: 0 });

    /// The number nearest to a decimal text, if it is one and in range.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() >= MAX_TEXT {
            return None;
        }
        let (negative, unsigned) = split_sign(text);
        if unsigned.eq_ignore_ascii_case(b"inf") || unsigned.eq_ignore_ascii_case(b"infinity") {
            return Some(Self::Infinite);
        }
        let (digits, power) = split_decimal(unsigned)?;
        Finite::nearest(negative, &digits, power).map(Self::Finite)
    }

    /// The sum, if it is finite.
    #[must_use]
    pub fn plus(self, other: Self) -> Option<Finite> {
        match (self, other) {
            (Self::Finite(a), Self::Finite(b)) => a.plus(b),
            _ => None,
        }
    }
}

impl Finite {
    /// The number nearest to `digits × 10^power`; none if it is too large, or not zero but too small.
    fn nearest(negative: bool, digits: &[u8], power: i32) -> Option<Self> {
        let significant = digits.iter().position(|digit| *digit != b'0').map_or(&[][..], |first| &digits[first..]);
        if significant.is_empty() {
            return Some(Self { negative, mantissa: 0, exponent: 0 });
        }
        // Beyond these the result is certain, and the arithmetic below would be long.
        let magnitude = significant.len() as i32 + power;
        if !(-5000..=5000).contains(&magnitude) {
            return None;
        }
        let mut number = Natural::from_digits(significant);
        let (mut exponent, mut inexact) = (0, false);
        if power >= 0 {
            number.times_ten_to(power as usize);
        } else {
            // Four bits per decimal digit, and two spare limbs and more, leave a quotient of over 64 bits.
            let limbs = power.unsigned_abs() as usize / 8 + 4;
            number.shift_limbs(limbs);
            exponent = -32 * limbs as i32;
            inexact = number.divide_by_ten_to(power.unsigned_abs() as usize);
        }
        let (top, dropped_bits, dropped) = number.top();
        let result = Self::rounded(negative, top, exponent + dropped_bits, inexact || dropped);
        (MIN_EXPONENT..=MAX_EXPONENT).contains(&(result.exponent + 63)).then_some(result)
    }

    /// The number nearest to `bits × 2^exponent`, ties to even; `more`: a little more than that. Then there are more
    /// than 64 significant bits.
    fn rounded(negative: bool, bits: u128, exponent: i32, more: bool) -> Self {
        let width = 128 - bits.leading_zeros() as i32;
        if width == 0 {
            return Self { negative: false, mantissa: 0, exponent: 0 };
        }
        let dropped = width - 64;
        if dropped <= 0 {
            let mantissa = (bits << -dropped) as u64;
            return Self { negative, mantissa, exponent: exponent + dropped };
        }
        let kept = shift_rounding(bits, dropped as u32, more);
        let (mantissa, carried) = u64::try_from(kept).map_or((1 << 63, 1), |mantissa| (mantissa, 0));
        Self { negative, mantissa, exponent: exponent + dropped + carried }
    }

    fn plus(self, other: Self) -> Option<Finite> {
        if self.mantissa == 0 {
            return Some(other);
        }
        if other.mantissa == 0 {
            return Some(self);
        }
        let key = |number: Self| (number.exponent, number.mantissa);
        let (large, small) = if key(self) >= key(other) { (self, other) } else { (other, self) };
        // 63 spare bits below the larger: enough for exact sums, or for at most one bit lost to cancellation.
        let distance = (large.exponent - small.exponent) as u32;
        let (wide, narrow) = (u128::from(large.mantissa) << 63, u128::from(small.mantissa) << 63);
        let aligned = narrow.checked_shr(distance).unwrap_or(0);
        let lost = aligned.checked_shl(distance) != Some(narrow);
        let bits = if large.negative == small.negative { wide + aligned } else { wide - aligned - u128::from(lost) };
        let sum = Self::rounded(large.negative, bits, large.exponent - 63, lost);
        (sum.exponent + 63 <= MAX_EXPONENT).then_some(sum)
    }

    /// As C's `%.17Lf` prints it, without zeros at the end of the fraction and without a sign at zero.
    #[must_use]
    pub fn to_text(self) -> String {
        if self.mantissa == 0 {
            return "0".to_owned();
        }
        let mut text = String::new();
        if self.negative {
            text.push('-');
        }
        if self.exponent >= 0 {
            text.push_str(&Natural::shifted(self.mantissa, self.exponent as u32).into_text());
            return text;
        }
        let scaled = u128::from(self.mantissa) * FRACTION_SCALE;
        let shift = self.exponent.unsigned_abs();
        // `scaled` has at most 121 bits, so that a longer shift rounds to nothing.
        let rounded = if shift < 128 { shift_rounding(scaled, shift, false) } else { 0 };
        if rounded == 0 {
            return "0".to_owned();
        }
        let (whole, fraction) = (rounded / FRACTION_SCALE, rounded % FRACTION_SCALE);
        write!(text, "{whole}.{fraction:0FRACTION_DIGITS$}").expect("a String takes all that is written");
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
        text
    }
}

/// `bits >> shift` (of 1 to 127), rounded to nearest, ties to even; `more`: there is a little more than `bits`.
fn shift_rounding(bits: u128, shift: u32, more: bool) -> u128 {
    let kept = bits >> shift;
    let rest = bits & ((1 << shift) - 1);
    let half = 1 << (shift - 1);
    let up = rest > half || (rest == half && (more || kept & 1 == 1));
    kept + u128::from(up)
}

/// The digits of `12.5e3` without their point, and the power of ten that they are to be multiplied with.
fn split_decimal(text: &[u8]) -> Option<(Vec<u8>, i32)> {
    let (number, power) = match text.iter().position(|byte| byte.eq_ignore_ascii_case(&b'e')) {
        Some(at) => (&text[..at], decimal_power(&text[at + 1..])?),
        None => (text, 0),
    };
    let (whole, fraction) = match number.iter().position(|byte| *byte == b'.') {
        Some(at) => (&number[..at], &number[at + 1..]),
        None => (number, &[][..]),
    };
    let digits = [whole, fraction].concat();
    let valid = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    valid.then(|| (digits, power - fraction.len() as i32))
}

/// The exponent behind the `e`; a large one is cut to what is surely out of range.
fn decimal_power(text: &[u8]) -> Option<i32> {
    let (negative, digits) = split_sign(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let power = digits.iter().fold(0, |power: i32, digit| (power * 10 + i32::from(digit - b'0')).min(1_000_000));
    Some(if negative { -power } else { power })
}

/// A natural number of any size, in limbs of 32 bits, the lowest first.
struct Natural(Vec<u32>);

impl Natural {
    fn from_digits(digits: &[u8]) -> Self {
        let mut number = Self(Vec::new());
        for chunk in digits.chunks(CHUNK) {
            let value = chunk.iter().fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
            number.times_plus(10u32.pow(chunk.len() as u32), value);
        }
        number
    }

    /// `mantissa × 2^shift`.
    fn shifted(mantissa: u64, shift: u32) -> Self {
        let wide = u128::from(mantissa) << (shift % 32);
        let mut limbs = vec![0; shift as usize / 32];
        limbs.extend([wide as u32, (wide >> 32) as u32, (wide >> 64) as u32]);
        let mut number = Self(limbs);
        number.trim();
        number
    }

    fn times_plus(&mut self, factor: u32, addend: u32) {
        let mut carry = u64::from(addend);
        for limb in &mut self.0 {
            carry += u64::from(*limb) * u64::from(factor);
            *limb = carry as u32;
            carry >>= 32;
        }
        if carry > 0 {
            self.0.push(carry as u32);
        }
    }

    /// Divides, and gives the remainder.
    fn divide(&mut self, divisor: u32) -> u32 {
        let mut rest = 0;
        for limb in self.0.iter_mut().rev() {
            rest = rest << 32 | u64::from(*limb);
            *limb = (rest / u64::from(divisor)) as u32;
            rest %= u64::from(divisor);
        }
        self.trim();
        rest as u32
    }

    fn times_ten_to(&mut self, power: usize) {
        for step in decimal_steps(power) {
            self.times_plus(step, 0);
        }
    }

    /// Divides by a power of ten; true if there was a remainder.
    fn divide_by_ten_to(&mut self, power: usize) -> bool {
        let mut inexact = false;
        for step in decimal_steps(power) {
            inexact |= self.divide(step) > 0;
        }
        inexact
    }

    fn shift_limbs(&mut self, limbs: usize) {
        self.0.splice(0..0, std::iter::repeat_n(0, limbs));
    }

    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    /// The top four limbs, how many bits are below them, and whether any of those is set.
    fn top(&self) -> (u128, i32, bool) {
        let (low, high) = self.0.split_at(self.0.len().saturating_sub(4));
        let top = high.iter().rev().fold(0, |top, limb| top << 32 | u128::from(*limb));
        (top, 32 * low.len() as i32, low.iter().any(|limb| *limb > 0))
    }

    fn into_text(mut self) -> String {
        let mut chunks = Vec::new();
        while !self.0.is_empty() {
            chunks.push(self.divide(CHUNK_SCALE));
        }
        let mut text = chunks.pop().unwrap_or(0).to_string();
        for chunk in chunks.iter().rev() {
            write!(text, "{chunk:0CHUNK$}").expect("a String takes all that is written");
        }
        text
    }
}

/// Factors whose product is `10^power`.
fn decimal_steps(power: usize) -> impl Iterator<Item = u32> {
    std::iter::repeat_n(CHUNK_SCALE, power / CHUNK).chain(std::iter::once(10u32.pow((power % CHUNK) as u32)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(a: &str, b: &str) -> Result<String, &'static str> {
        let parse = |text: &str| LongDouble::parse(text.as_bytes()).ok_or("not a float");
        let sum = parse(a)?.plus(parse(b)?).ok_or("not finite")?;
        Ok(sum.to_text())
    }

    /// Taken from Redis 7.0.15 on x86-64: `SET k a`, `INCRBYFLOAT k b`.
    #[test]
    fn adds_as_redis_does() {
        let cases: &[(&str, &str, Result<&str, &str>)] = &[
            ("0.1", "0.2", Ok("0.3")),
            ("10.50", "0.1", Ok("10.6")),
            ("5.0e3", "2.0e2", Ok("5200")),
            ("3000", "1.1", Ok("3001.10000000000000009")),
            ("0", "-0", Ok("0")),
            ("-0", "-0", Ok("0")),
            ("1", "-1", Ok("0")),
            ("1.5", "-1.5", Ok("0")),
            ("0.3", "-0.1", Ok("0.2")),
            ("1e3", "1E-3", Ok("1000.001")),
            (".5", "5.", Ok("5.5")),
            ("+5", "5", Ok("10")),
            ("1e", "1", Err("not a float")),
            (".", "1", Err("not a float")),
            ("", "1", Err("not a float")),
            ("e5", "1", Err("not a float")),
            ("-", "1", Err("not a float")),
            (" 1", "1", Err("not a float")),
            ("1 ", "1", Err("not a float")),
            ("1_0", "1", Err("not a float")),
            ("1,5", "1", Err("not a float")),
            ("--1", "1", Err("not a float")),
            ("1.2.3", "1", Err("not a float")),
            ("1e1.5", "1", Err("not a float")),
            ("1e+2", "1e-2", Ok("100.01")),
            ("nan", "1", Err("not a float")),
            ("inf", "1", Err("not finite")),
            ("1", "-INF", Err("not finite")),
            ("infinity", "inf", Err("not finite")),
            ("infin", "1", Err("not a float")),
            ("1e4932", "1e4932", Err("not finite")),
            ("1.19e4932", "1", Err("not a float")),
            ("1e4933", "1", Err("not a float")),
            ("1e-4950", "0", Ok("0")),
            ("3.6e-4951", "0", Ok("0")),
            ("1.9e-4951", "0", Ok("0")),
            ("1.8e-4951", "0", Err("not a float")),
            ("1e-4952", "0", Err("not a float")),
            ("1e-99999999999", "0", Err("not a float")),
            ("1e99999999999", "0", Err("not a float")),
            ("0e99999999999", "1", Ok("1")),
            ("9007199254740993", "0", Ok("9007199254740993")),
            ("9223372036854775807", "1", Ok("9223372036854775808")),
            ("18446744073709551615", "1", Ok("18446744073709551616")),
            ("18446744073709551616", "1", Ok("18446744073709551616")),
            ("18446744073709551617", "2", Ok("18446744073709551618")),
            ("36893488147419103233", "0", Ok("36893488147419103232")),
            ("36893488147419103235", "0", Ok("36893488147419103236")),
            ("123456789012345678901234567890", "0.5", Ok("123456789012345678899921813504")),
            ("3.14159265358979323846", "0", Ok("3.14159265358979324")),
            ("0.00000000000000001", "0", Ok("0.00000000000000001")),
            ("0.000000000000000005", "0", Ok("0")),
            ("0.0000000000000000051", "0", Ok("0.00000000000000001")),
            ("0.000000000000000015", "0", Ok("0.00000000000000002")),
            ("-0.000000000000000004", "0", Ok("0")),
            ("1e-17", "1e-17", Ok("0.00000000000000002")),
            ("99999999.99999999", "0.00000001", Ok("100000000")),
            ("1e20", "1e-17", Ok("100000000000000000000")),
            ("1e20", "-1", Ok("100000000000000000000")),
            ("1.1", "2.2", Ok("3.3")),
            ("1000000.1", "0.2", Ok("1000000.30000000000001137")),
            ("1700000000.123", "0.001", Ok("1700000000.12400000006891787")),
            ("-1.1", "1", Ok("-0.1")),
            ("12345.6789", "-12345.6788", Ok("0.00009999999999977")),
            ("0.1", "-0.30000000000000004", Ok("-0.20000000000000004")),
            ("4.35", "100", Ok("104.35")),
            ("1e15", "0.3", Ok("1000000000000000.29998779296875")),
            ("1e18", "0.3", Ok("1000000000000000000.3125")),
            ("1e19", "0.3", Ok("10000000000000000000")),
            ("-873418259388.000000000", "434836507.2", Ok("-872983422880.80000001192092896")),
            ("491854.0006", "-781011645.214", Ok("-780519791.21339999994961545")),
            ("4688936.006", "818110197.17", Ok("822799133.17599999997764826")),
            ("-135.0", "830629914.2717", Ok("830629779.2716999999829568")),
            ("41110.0008", "195055243.6278", Ok("195096353.62859999999636784")),
            ("-5.0000002", "283264919.42", Ok("283264914.41999980001128279")),
            ("-2517457551.000001", "381455610.63012", Ok("-2136001940.36988100002054125")),
            ("-492.00000002", "275073141.5", Ok("275072649.49999998000566848")),
            ("-8.0000005", "611179859.7", Ok("611179851.69999950000783429")),
            ("683676843342.0001", "998199797.46222144", Ok("684675043139.46232146024703979")),
            ("-269395330.00000001", "922089749.4801", Ok("652694419.48009998997440562")),
            ("-26.000008", "984788611.348", Ok("984788585.34799199999542907")),
        ];
        for (a, b, expected) in cases {
            assert_eq!(add(a, b).as_deref(), expected.as_ref().copied(), "{a} + {b}");
        }
    }

    #[test]
    fn huge_results_have_all_their_digits() {
        let sum = add("1e4000", "0").expect("it is in range");
        assert!(sum.starts_with("99999999999999999999654638730996237849324925835069576313015083330432619433063423"));
        assert!(sum.ends_with("57825543441956972190272729951206648276349901340672"));
        assert_eq!(sum.len(), 4000);
    }

    #[test]
    fn hexadecimal_is_refused() {
        assert_eq!(LongDouble::parse(b"0x10"), None);
    }

    #[test]
    fn texts_are_bounded() {
        assert!(LongDouble::parse("1".repeat(4900).as_bytes()).is_some());
        assert_eq!(LongDouble::parse("0".repeat(MAX_TEXT).as_bytes()), None);
    }

    proptest::proptest! {
        #[test]
        fn takes_any_text(text in "[-+]?[0-9]{0,30}\\.?[0-9]{0,30}([eE][-+]?[0-9]{0,5})?", any: Vec<u8>) {
            let _ = LongDouble::parse(&any);
            if let Some(number) = LongDouble::parse(text.as_bytes()) {
                let _ = number.plus(LongDouble::ZERO).map(Finite::to_text);
            }
        }

        /// Sums of small multiples of 1/1024 are exact in every binary format.
        #[test]
        fn is_exact_where_binary_is(a in -1_000_000i32..1_000_000, b in -1_000_000i32..1_000_000) {
            let text = |n: i32| (f64::from(n) / 1024.0).to_string();
            let sum = add(&text(a), &text(b));
            let expected = text(a + b);
            proptest::prop_assert_eq!(sum, Ok(if expected == "-0" { "0".to_owned() } else { expected }));
        }
    }
}
