//! Conditions in JsonLogic, in forms that every engine of flagd answers alike.
//!
//! Ours convert nothing and see through lists; JsonLogic converts nearly everything, and each engine a little differently. So:
//! - `{"some": [{"merge": [x]}, …]}` asks of `x` itself and of the elements of a list alike. `some` alone breaks JavaScript's engine off for
//!   anything but a list.
//! - `{"starts_with": [x, ""]}` holds for text and nothing else.
//! - Texts are compared by `in` a list. `===` of Rust's engine takes two spellings of one instant for equal; Go's `in` finds a number among
//!   texts that read so, so that such lists are asked of text only.
//! - `true` is 1 to Python, also by `===`. As text (`cat`) they differ.
//! - A number is what is neither text nor a list (a list is no element of what it merges to) and begins as a number does when it is written.
//!   Only then is it compared by size: the engines convert, or break off, for anything else.
//! - Python reads version numbers beyond 2^64 - 1, which nobody else does.

use serde_json::{Value as Json, json};

use super::super::condition::{Condition, Conditions, Members, Operator};
use super::super::context::TARGETING_KEY;
use super::super::segment::CompiledSegment;
use super::super::value::number_to_json;
use super::Obstacle;
use super::chain::Translator;
use super::logic::{Truth, asks, operator, var};

impl Translator<'_> {
    pub(super) fn conditions(&mut self, all: &Conditions, conditions: &[Condition]) -> Result<Truth, Obstacle> {
        let each = conditions.iter().map(|condition| self.condition(all, condition)).collect::<Result<Vec<_>, _>>()?;
        Ok(Truth::all(each))
    }

    fn condition(&mut self, all: &Conditions, condition: &Condition) -> Result<Truth, Obstacle> {
        let truth = match &condition.operator {
            Operator::Segment(index) => self.segment(all.segment(*index))?,
            operator => self.attribute(all, all.name(condition.name()).as_str(), operator)?,
        };
        Ok(if condition.not { truth.not() } else { truth })
    }

    fn segment(&mut self, segment: &CompiledSegment) -> Result<Truth, Obstacle> {
        let included = self.has_key(segment.included.iter())?;
        if segment.when.all.is_empty() {
            return Ok(included);
        }
        let excluded = self.has_key(segment.excluded.iter())?;
        let when = self.conditions(&segment.when, &segment.when.all)?;
        Ok(Truth::any([included, Truth::all([excluded.not(), when])]))
    }

    /// Whether the targeting key is one of these.
    pub(super) fn has_key<'k>(&mut self, keys: impl Iterator<Item = &'k str>) -> Result<Truth, Obstacle> {
        let keys: Vec<&str> = keys.filter(|key| !key.is_empty()).collect();
        self.spend(keys.iter().map(|key| key.len() + 3).sum())?;
        Ok(if keys.is_empty() { Truth::Never } else { asks("in", [var(TARGETING_KEY), json!(keys)]) })
    }

    fn attribute(&mut self, all: &Conditions, name: &str, operator: &Operator) -> Result<Truth, Obstacle> {
        let value = attribute(name)?;
        self.spend(128 + 2 * name.len())?;
        let is_key = name == TARGETING_KEY;
        match operator {
            Operator::Exists(expected) => {
                let exists = if is_key { is_filled_text(&value) } else { asks("!==", [value, Json::Null]) };
                return Ok(if *expected { exists } else { exists.not() });
            }
            // Text or nothing, and the empty one is nothing.
            _ if is_key => {
                let asked = self.of_one(all, operator, &value)?;
                let is_about_empty = matches!(operator, Operator::EqualsText(_) | Operator::InFew(_) | Operator::In(_));
                return Ok(if is_about_empty { Truth::all([is_filled_text(&value), asked]) } else { asked });
            }
            _ => {}
        }
        Ok(match self.of_one(all, operator, &var(""))? {
            Truth::Depends(json) => asks("some", [operator_of("merge", value), json]),
            known => known,
        })
    }

    /// What the operator says of one value that is no list; of a list it says no.
    fn of_one(&mut self, all: &Conditions, operator: &Operator, one: &Json) -> Result<Truth, Obstacle> {
        let of_texts = |texts: Vec<&str>, name: &str| Truth::any(texts.into_iter().map(|text| asks(name, [one.clone(), text.into()])));
        Ok(match operator {
            Operator::EqualsBool(value) => is_bool(one, *value),
            Operator::EqualsNumber(number) => is_number_of(one, *number),
            Operator::EqualsText(span) => self.is_text_of(one, vec![all.text(*span)])?,
            Operator::InFew(list) => self.is_text_of(one, all.texts(*list).collect())?,
            Operator::In(members) => self.is_member(one, members)?,
            Operator::StartsWith(list) => of_texts(self.texts(all.texts(*list))?, "starts_with"),
            Operator::EndsWith(list) => of_texts(self.texts(all.texts(*list))?, "ends_with"),
            Operator::Contains(list) => {
                let parts = self.texts(all.texts(*list))?;
                let any = Truth::any(parts.into_iter().map(|part| asks("in", [part.into(), one.clone()])));
                Truth::all([is_text(one), any])
            }
            Operator::LessThan(bound) => is_of_size(one, "<", *bound),
            Operator::AtMost(bound) => is_of_size(one, "<=", *bound),
            Operator::GreaterThan(bound) => is_of_size(one, ">", *bound),
            Operator::AtLeast(bound) => is_of_size(one, ">=", *bound),
            Operator::Semver(range) => {
                let compared = range.iter().map(|comparison| {
                    let (sign, version) = comparison.parts();
                    asks("sem_ver", [one.clone(), sign.into(), version.into()])
                });
                Truth::all(std::iter::once(is_text(one)).chain(compared))
            }
            Operator::Matches(_) => return Err(Obstacle::Regex),
            Operator::Before(_) | Operator::After(_) => return Err(Obstacle::Date),
            Operator::Cidr(_) => return Err(Obstacle::Network),
            // Both are asked elsewhere.
            Operator::Exists(_) | Operator::Segment(_) => Truth::Never,
        })
    }

    fn texts<'t>(&mut self, texts: impl Iterator<Item = &'t str>) -> Result<Vec<&'t str>, Obstacle> {
        let texts: Vec<_> = texts.collect();
        self.spend(texts.iter().map(|text| text.len() + 64).sum())?;
        Ok(texts)
    }

    fn is_text_of(&mut self, one: &Json, texts: Vec<&str>) -> Result<Truth, Obstacle> {
        self.spend(texts.iter().map(|text| text.len() + 3).sum())?;
        let reads_as_number = texts.iter().any(|text| text.trim().parse::<f64>().is_ok());
        let is_in = if texts.is_empty() { Truth::Never } else { asks("in", [one.clone(), json!(texts)]) };
        Ok(if reads_as_number { Truth::all([is_text(one), is_in]) } else { is_in })
    }

    fn is_member(&mut self, one: &Json, members: &Members) -> Result<Truth, Obstacle> {
        let Members { texts, numbers, yes, no } = members;
        let texts = self.is_text_of(one, texts.iter().collect())?;
        self.spend(24 * numbers.len())?;
        let (bits, others): (Vec<f64>, Vec<f64>) = numbers.iter().copied().partition(|number| is_bit(*number));
        let bits = bits.into_iter().map(|bit| is_number_of(one, bit));
        let others = match others.is_empty() {
            true => Truth::Never,
            false => asks("in", [one.clone(), others.into_iter().map(number_to_json).collect::<Vec<_>>().into()]),
        };
        let bools = [(*yes, true), (*no, false)].into_iter().filter(|(is_listed, _)| *is_listed).map(|(_, value)| is_bool(one, value));
        Ok(Truth::any([texts, others].into_iter().chain(bits).chain(bools)))
    }
}

/// An attribute where every engine finds it. A dot leads through objects, but in a context with an attribute of just that name, ours has that.
pub(super) fn attribute(name: &str) -> Result<Json, Obstacle> {
    if name.contains(['.', '\\']) || name == "$flagd" { Err(Obstacle::Attribute) } else { Ok(var(name)) }
}

fn operator_of(name: &str, one: Json) -> Json {
    operator(name, [one])
}

fn is_text(one: &Json) -> Truth {
    asks("starts_with", [one.clone(), "".into()])
}

pub(super) fn is_filled_text(one: &Json) -> Truth {
    Truth::all([is_text(one), asks("!==", [one.clone(), "".into()])])
}

/// Python writes `True`.
fn reads_as_bool(one: &Json, value: bool) -> Truth {
    let words = if value { ["true", "True"] } else { ["false", "False"] };
    asks("in", [operator_of("cat", one.clone()), json!(words)])
}

fn is_bool(one: &Json, value: bool) -> Truth {
    Truth::all([asks("===", [one.clone(), value.into()]), reads_as_bool(one, value)])
}

fn is_bit(number: f64) -> bool {
    number == 0.0 || number == 1.0
}

fn is_number_of(one: &Json, number: f64) -> Truth {
    let is_equal = asks("===", [one.clone(), number_to_json(number)]);
    if is_bit(number) { Truth::all([is_equal, reads_as_bool(one, number == 1.0).not()]) } else { is_equal }
}

fn is_of_size(one: &Json, comparison: &str, bound: f64) -> Truth {
    let is_no_list = asks("in", [one.clone(), operator_of("merge", one.clone())]);
    let first = operator("substr", [operator_of("cat", one.clone()), 0.into(), 1.into()]);
    let begins_as_number = asks("in", [first, json!(["-", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9"])]);
    let compared = asks(comparison, [one.clone(), number_to_json(bound)]);
    Truth::all([is_text(one).not(), is_no_list, begins_as_number, compared])
}
