//! Points in time and lengths of it, as people write them: ISO 8601.

use std::fmt::Write as _;

use vltava_protocol::ids::Timestamp;

const SECOND_MS: i64 = 1_000;
const MINUTE_MS: i64 = 60 * SECOND_MS;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Reads `2026-11-24T18:30:00.000`, with a zone (`Z`, `+01:00`, `+0100`, `+01`) or in UTC without.
/// Seconds, their fraction and the whole time of day may be missing.
pub fn datetime(text: &str) -> Result<Timestamp, String> {
    let wrong = || "not of the form 2026-11-24T18:30:00.000, with a zone or in UTC".to_owned();
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00"));
    let mut parts = date.splitn(3, '-').map(number);
    let mut part = || parts.next().flatten().ok_or_else(wrong);
    let (year, month, day) = (part()?, part()?, part()?);
    if !(1..=12).contains(&month) || day < 1 || day > days_of_month(year, month) {
        return Err(wrong());
    }
    let zone_at = time.find(['Z', '+', '-']).unwrap_or(time.len());
    let (clock, zone) = time.split_at(zone_at);
    let clock_ms = clock_ms(clock).ok_or_else(wrong)?;
    let zone_ms = zone_ms(zone).ok_or_else(wrong)?;
    Ok(Timestamp(days_before(year, month, day) * DAY_MS + clock_ms - zone_ms))
}

/// Reads `P1DT2H30M5.5S`: the days, hours, minutes and seconds of a duration, in milliseconds.
pub fn duration_ms(text: &str) -> Result<i64, String> {
    let wrong = || "not of the form P1DT2H30M5S".to_owned();
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    let rest = rest.strip_prefix('P').ok_or_else(wrong)?;
    let (days, clock) = rest.split_once('T').unwrap_or((rest, ""));
    if days.is_empty() && clock.is_empty() || rest.ends_with('T') {
        return Err(wrong());
    }
    let days = units(days, &[('D', DAY_MS)]).ok_or_else(wrong)?;
    let units_of_clock = [('H', HOUR_MS), ('M', MINUTE_MS), ('S', SECOND_MS)];
    let clock = units(clock, &units_of_clock).ok_or_else(wrong)?;
    days.checked_add(clock).map(|sum| sign * sum).ok_or_else(wrong)
}

/// Writes a point in time, in UTC.
pub fn show(timestamp: Timestamp) -> String {
    let (days, of_day) = (timestamp.0.div_euclid(DAY_MS), timestamp.0.rem_euclid(DAY_MS));
    let (year, month, day) = date_of(days);
    let (hour, minute) = (of_day / HOUR_MS, of_day % HOUR_MS / MINUTE_MS);
    let (second, ms) = (of_day % MINUTE_MS / SECOND_MS, of_day % SECOND_MS);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Writes a length of time in at most two units: `2h 5m`, `3.2s`, `17ms`.
pub fn show_ms(ms: i64) -> String {
    let mut shown = String::new();
    let (sign, ms) = if ms < 0 { ("-", ms.saturating_neg()) } else { ("", ms) };
    let two = |large: i64, small: i64| (ms / large, ms % large / small);
    let written = match ms {
        ..SECOND_MS => write!(shown, "{sign}{ms}ms"),
        SECOND_MS..MINUTE_MS => write!(shown, "{sign}{}.{}s", ms / SECOND_MS, ms % SECOND_MS / 100),
        MINUTE_MS..HOUR_MS => {
            let (minutes, seconds) = two(MINUTE_MS, SECOND_MS);
            write!(shown, "{sign}{minutes}m {seconds}s")
        }
        HOUR_MS..DAY_MS => {
            let (hours, minutes) = two(HOUR_MS, MINUTE_MS);
            write!(shown, "{sign}{hours}h {minutes}m")
        }
        DAY_MS.. => {
            let (days, hours) = two(DAY_MS, HOUR_MS);
            write!(shown, "{sign}{days}d {hours}h")
        }
    };
    written.expect("a string takes everything");
    shown
}

/// Digits only: `parse` alone would take signs too.
fn number(text: &str) -> Option<i64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number && text.len() <= 9)
}

/// Milliseconds of `18:30`, `18:30:05` or `18:30:05.250`.
fn clock_ms(text: &str) -> Option<i64> {
    let mut parts = text.split(':');
    let (hour, minute) = (number(parts.next()?)?, number(parts.next()?)?);
    let (second, fraction) = match parts.next() {
        None => (0, 0),
        Some(second) => match second.split_once('.') {
            None => (number(second)?, 0),
            Some((second, fraction)) => (number(second)?, fraction_ms(fraction)?),
        },
    };
    let is_time = hour < 24 && minute < 60 && second < 60 && parts.next().is_none();
    is_time.then_some(hour * HOUR_MS + minute * MINUTE_MS + second * SECOND_MS + fraction)
}

/// Milliseconds of the digits behind a decimal point; finer ones are cut off.
fn fraction_ms(digits: &str) -> Option<i64> {
    number(digits)?;
    number(&format!("{digits:0<3}")[..3])
}

/// How far a zone is ahead of UTC.
fn zone_ms(text: &str) -> Option<i64> {
    if text.is_empty() || text == "Z" {
        return Some(0);
    }
    let (sign, digits) = (if text.starts_with('-') { -1 } else { 1 }, text.get(1..)?);
    let digits = digits.replacen(':', "", 1);
    let (hours, minutes) = match digits.len() {
        2 => (number(&digits)?, 0),
        4 => (number(&digits[..2])?, number(&digits[2..])?),
        _ => return None,
    };
    (hours < 24 && minutes < 60).then_some(sign * (hours * HOUR_MS + minutes * MINUTE_MS))
}

/// Milliseconds of a row of numbers with units, which come in this order and once each. The last
/// may have a fraction if it is seconds.
fn units(mut text: &str, units: &[(char, i64)]) -> Option<i64> {
    let mut sum: i64 = 0;
    for &(unit, unit_ms) in units {
        let Some((amount, rest)) = text.split_once(unit) else { continue };
        let (whole, fraction) = match amount.split_once('.') {
            Some((whole, fraction)) if unit_ms == SECOND_MS => (whole, fraction_ms(fraction)?),
            Some(_) => return None,
            None => (amount, 0),
        };
        sum = sum.checked_add(number(whole)?.checked_mul(unit_ms)?)?.checked_add(fraction)?;
        text = rest;
    }
    text.is_empty().then_some(sum)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days of the years before this one, counted from year 1 of the calendar we have now.
fn days_before_year(year: i64) -> i64 {
    let years = year - 1;
    years * 365 + years.div_euclid(4) - years.div_euclid(100) + years.div_euclid(400)
}

/// Days from 1970-01-01 to this date.
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    let months: i64 = (1..month).map(|month| days_of_month(year, month)).sum();
    days_before_year(year) - days_before_year(1970) + months + day - 1
}

/// The date so many days after 1970-01-01.
fn date_of(days: i64) -> (i64, i64, i64) {
    let all = days + days_before_year(1970);
    // 400 years have 146,097 days. The guess is at most one year off, either way.
    let mut year = (all * 400).div_euclid(146_097) + 1;
    while days_before_year(year) > all {
        year -= 1;
    }
    while days_before_year(year + 1) <= all {
        year += 1;
    }
    let (mut month, mut rest) = (1, all - days_before_year(year));
    while rest >= days_of_month(year, month) {
        rest -= days_of_month(year, month);
        month += 1;
    }
    (year, month, rest + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_time_are_read() {
        for (text, expected) in [
            ("1970-01-01T00:00:00.000", Some(0)),
            ("1970-01-01", Some(0)),
            ("2026-11-24T18:30:05.250Z", Some(1_795_545_005_250)),
            ("2026-11-24T18:30:05.2501+01:00", Some(1_795_541_405_250)),
            ("2026-11-24 18:30", Some(1_795_545_000_000)),
            ("2026-11-24T18:30-0030", Some(1_795_546_800_000)),
            ("2024-02-29T00:00+02", Some(1_709_157_600_000)),
            ("2023-02-29", None),
            ("2026-13-01", None),
            ("2026-11-24T24:00", None),
            ("2026-11-24T18", None),
            ("2026-11-24T18:30:00.", None),
            ("2026-11-24T18:30+1", None),
            ("+2026-11-24", None),
            ("tomorrow", None),
            ("", None),
        ] {
            assert_eq!(datetime(text).ok().map(|at| at.0), expected, "{text}");
        }
    }

    #[test]
    fn durations_are_read() {
        for (text, expected) in [
            ("P1D", Some(86_400_000)),
            ("PT1H", Some(3_600_000)),
            ("P1DT2H30M5.5S", Some(95_405_500)),
            ("-PT5M", Some(-300_000)),
            ("PT0S", Some(0)),
            ("P", None),
            ("PT", None),
            ("P1DT", None),
            ("PT1S1H", None),
            ("PT1.5H", None),
            ("1h", None),
            ("PT1", None),
        ] {
            assert_eq!(duration_ms(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn points_in_time_are_written_as_they_are_read() {
        for text in [
            "1970-01-01T00:00:00.000Z",
            "1969-12-31T23:59:59.999Z",
            "2024-02-29T12:00:00.001Z",
            "2000-12-31T00:00:00.000Z",
            "2100-03-01T00:00:00.000Z",
        ] {
            assert_eq!(show(datetime(text).unwrap()), text);
        }
    }

    #[test]
    fn lengths_of_time_are_written_short() {
        for (ms, expected) in [
            (0, "0ms"),
            (999, "999ms"),
            (3_250, "3.2s"),
            (125_000, "2m 5s"),
            (7_500_000, "2h 5m"),
            (180_000_000, "2d 2h"),
            (-1_500, "-1.5s"),
        ] {
            assert_eq!(show_ms(ms), expected);
        }
    }
}
