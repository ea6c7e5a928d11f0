//! Running a program: one context, one result. Total: whatever the rule and the context are, the result is a value or that the steps are
//! spent.
//!
//! Where the engines of flagd differ, the daemon's (Go, github.com/diegoholiveira/jsonlogic) is followed; where that one would break off with
//! an error for a wrong type, JavaScript's JsonLogic is, or the operator is false, empty or null.

use std::cell::Cell;

use serde_json::Value as Json;
use smallvec::SmallVec;

use super::super::condition::read;
use super::super::context::{Attribute, Attributes};
use super::super::decide::Lookup;
use super::super::document::FractionalVersion;
use super::super::limits;
use super::super::version::Version;
use super::loaded::Loaded;
use super::program::{Args, Arithmetic, Comparison, Leads, Node, Path};
use super::value::{Buffer, Text, Value};

/// More steps were asked for than one evaluation has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Spent;

/// One evaluation.
pub(super) struct Run<'r> {
    pub(super) flag_key: &'r str,
    pub(super) context: &'r dyn Attributes,
    pub(super) flags: &'r dyn Lookup,
    pub(super) fractional: FractionalVersion,
    pub(super) loaded: &'r Loaded,
    pub(super) steps: Cell<usize>,
}

/// What `var` reads: `None`, the context; else what an operator over a list is at.
pub(super) type Scope<'s, 'r> = Option<&'s Frame<'s, 'r>>;

pub(super) struct Frame<'s, 'r> {
    pub(super) data: Data<'r>,
    /// Where the operator stands.
    pub(super) outer: Scope<'s, 'r>,
    /// What the element lacks is looked for there. JsonLogic has no such thing, but flagd's daemon has, for all operators except `map` and
    /// `reduce`; and there it even goes before the element, which we do not follow.
    pub(super) sees_outer: bool,
}

pub(super) enum Data<'r> {
    Element(Value<'r>),
    Reduction { current: Value<'r>, accumulator: Value<'r> },
}

pub(super) type Operands<'r> = SmallVec<[Value<'r>; 4]>;

/// Bytes that are read or written for one step.
const BYTES_A_STEP: usize = 64;
/// Steps that it takes at least to bring a list or an object over from the context.
const LOADING: usize = 64;

impl<'r> Run<'r> {
    pub(super) fn spend(&self, steps: usize) -> Result<(), Spent> {
        self.steps.set(self.steps.get().checked_sub(steps).ok_or(Spent)?);
        Ok(())
    }

    pub(super) fn spend_on(&self, bytes: usize) -> Result<(), Spent> {
        self.spend(bytes / BYTES_A_STEP)
    }

    pub(super) fn value(&self, node: &'r Node, scope: Scope<'_, 'r>) -> Result<Value<'r>, Spent> {
        self.spend(1)?;
        match node {
            Node::Literal(json) => Ok(Value::of(json)),
            Node::Var(var) => self.var(&var.path, var.default.as_ref(), scope),
            Node::If(clauses) => self.first_that_holds(clauses, scope),
            Node::And(nodes) => self.until(nodes, false, scope),
            Node::Or(nodes) => self.until(nodes, true, scope),
            Node::Not(args) => Ok(Value::Bool(!self.first(args, scope)?.is_truthy())),
            Node::Truth(args) => Ok(Value::Bool(self.first(args, scope)?.is_truthy())),
            Node::Compare(comparison, args) => self.compare(*comparison, args, scope),
            Node::InMembers(held) => {
                let (needle, members) = &**held;
                let needle = self.value(needle, scope)?;
                self.spend_on(needle.size())?;
                Ok(Value::Bool(members.have(&needle)))
            }
            Node::Fractional(fractional) => self.fractional(fractional, scope),
            Node::StartsWith(args) => self.two_texts(args, |text, start| text.starts_with(start), scope),
            Node::EndsWith(args) => self.two_texts(args, |text, end| text.ends_with(end), scope),
            Node::SemVer(args) => self.sem_ver(args, scope),
            Node::In(args) => self.within(args, scope),
            Node::List(nodes) => Ok(Value::list(self.values(nodes, scope)?.into_vec())),
            Node::Computed(computed) => {
                let path = self.value(&computed.path, scope)?;
                if scope.is_none() && !path.is_there() {
                    return Ok(Value::Null);
                }
                let path = self.path(&path)?;
                self.var(&path, computed.default.as_ref(), scope)
            }
            Node::Missing(args) => self.missing(args, scope),
            Node::MissingSome(args) => self.missing_some(args, scope),
            Node::Arithmetic(arithmetic, args) => {
                Ok(calculate(*arithmetic, &self.arguments(args, scope)?).map_or(Value::Null, Value::Number))
            }
            Node::Cat(args) => self.cat(args, scope, &mut Buffer::default()).map(Value::made),
            Node::Substr(args) => self.substr(args, scope),
            Node::Merge(args) => self.merge(args, scope),
            Node::Each(iteration, parts) => self.each(*iteration, parts, scope),
            Node::Reduce(parts) => self.reduce(parts, scope),
        }
    }

    fn values(&self, nodes: &'r [Node], scope: Scope<'_, 'r>) -> Result<Operands<'r>, Spent> {
        nodes.iter().map(|node| self.value(node, scope)).collect()
    }

    pub(super) fn arguments(&self, args: &'r Args, scope: Scope<'_, 'r>) -> Result<Operands<'r>, Spent> {
        match args {
            Args::Listed(nodes) => self.values(nodes, scope),
            Args::Given(node) => match self.value(node, scope)? {
                Value::List(elements) => {
                    self.spend(elements.len())?;
                    Ok(elements.iter().collect())
                }
                value => Ok(SmallVec::from_iter([value])),
            },
        }
    }

    fn first(&self, args: &'r Args, scope: Scope<'_, 'r>) -> Result<Value<'r>, Spent> {
        Ok(self.arguments(args, scope)?.into_iter().next().unwrap_or(Value::Null))
    }

    fn var(&self, path: &Path, default: Option<&'r Node>, scope: Scope<'_, 'r>) -> Result<Value<'r>, Spent> {
        match (self.find(path, scope)?, default) {
            (Some(found), _) => Ok(found),
            (None, Some(default)) => self.value(default, scope),
            (None, None) => Ok(Value::Null),
        }
    }

    /// `None`: it is not there, or null.
    fn find(&self, path: &Path, scope: Scope<'_, 'r>) -> Result<Option<Value<'r>>, Spent> {
        let Some(Frame { data, outer, sees_outer }) = scope else { return self.of_context(path) };
        let found = match data {
            Data::Element(element) => element.member(path.as_str()),
            Data::Reduction { current, accumulator } => {
                let (name, rest) = path.as_str().split_once('.').unwrap_or((path.as_str(), ""));
                match name {
                    "current" => current.member(rest),
                    "accumulator" => accumulator.member(rest),
                    _ => None,
                }
            }
        };
        let is_outer = found.is_none() && *sees_outer && !path.is_inner && path.leads != Leads::Everywhere;
        if is_outer { self.find(path, *outer) } else { Ok(found) }
    }

    fn of_context(&self, path: &Path) -> Result<Option<Value<'r>>, Spent> {
        let context = self.context;
        Ok(Some(match path.leads {
            Leads::ToFlagKey => Value::lent(self.flag_key),
            Leads::ToTime => Value::Number(self.flags.unix_s() as f64),
            Leads::ToFlagd | Leads::Everywhere => return self.load(path.as_str()),
            // What is longer is a computed path, and the name of nothing (see `Tag`).
            Leads::ToAttribute | Leads::ToElement if path.as_str().len() > limits::KEY_BYTES => return Ok(None),
            Leads::ToAttribute | Leads::ToElement => match read(path.name(), context) {
                Some(Attribute::Bool(value)) => Value::Bool(value),
                Some(Attribute::Number(value)) => Value::Number(value),
                Some(Attribute::String(text)) => Value::lent(text),
                Some(Attribute::List | Attribute::Object) => return self.load(path.as_str()),
                Some(Attribute::Null) => return Ok(None),
                None if path.leads == Leads::ToElement => return self.element(path.as_str()),
                None => return Ok(None),
            },
        }))
    }

    /// Through a list by number: from the first part of the path that is one.
    fn element(&self, path: &str) -> Result<Option<Value<'r>>, Spent> {
        for (end, _) in path.match_indices('.') {
            if self.context.attribute(&path[..end]) == Some(Attribute::List) {
                return Ok(self.load(&path[..end])?.and_then(|list| list.member(&path[end..])));
            }
        }
        Ok(None)
    }

    /// A list or an object of the context, or all of it, brought over once.
    fn load(&self, path: &str) -> Result<Option<Value<'r>>, Spent> {
        let load = || match path {
            "$flagd" => Some(self.flagd()),
            "" => {
                let Some(Json::Object(mut fields)) = self.context.json("") else { return None };
                fields.extend(self.context.targeting_key().map(|key| ("targetingKey".to_owned(), key.into())));
                fields.insert("$flagd".to_owned(), self.flagd());
                Some(Json::Object(fields))
            }
            path => self.context.json(path),
        };
        let (json, is_new) = self.loaded.get(path, load);
        if is_new {
            self.spend(LOADING + weight(json))?;
        }
        Ok(Some(Value::of(json)).filter(Value::is_there))
    }

    fn flagd(&self) -> Json {
        serde_json::json!({ "flagKey": self.flag_key, "timestamp": self.flags.unix_s() })
    }

    /// A path that was computed.
    fn path(&self, value: &Value<'r>) -> Result<Path, Spent> {
        self.spend_on(value.size())?;
        let mut text = Buffer::default();
        // Of a list the first element, as where it is spelled out.
        match value {
            Value::List(parts) => text.push(&parts.get(0).unwrap_or(Value::Null)),
            other => text.push(other),
        }
        Ok(Path::of(text.as_str()))
    }

    fn first_that_holds(&self, clauses: &'r [Node], scope: Scope<'_, 'r>) -> Result<Value<'r>, Spent> {
        let (pairs, otherwise) = clauses.as_chunks::<2>();
        for [condition, then] in pairs {
            if self.value(condition, scope)?.is_truthy() {
                return self.value(then, scope);
            }
        }
        otherwise.first().map_or(Ok(Value::Null), |otherwise| self.value(otherwise, scope))
    }

    /// The first value whose truth is `wanted`, else the last.
    fn until(&self, nodes: &'r [Node], wanted: bool, scope: Scope<'_, 'r>) -> Result<Value<'r>, Spent> {
        let mut last = Value::Null;
        for node in nodes {
            last = self.value(node, scope)?;
            if last.is_truthy() == wanted {
                break;
            }
        }
        Ok(last)
    }

    /// Of three operands, the one in the middle lies between the others, for the four that compare sizes. Fewer than two are nothing.
    fn compare(&self, comparison: Comparison, args: &'r Args, scope: Scope<'_, 'r>) -> Result<Value<'r>, Spent> {
        let operands = self.arguments(args, scope)?;
        let [a, b, rest @ ..] = &operands[..] else {
            return Ok(Value::Bool(matches!(comparison, Comparison::NotEqual | Comparison::NotSame)));
        };
        operands.iter().try_for_each(|operand| self.spend_on(operand.size()))?;
        let holds = |a: &Value<'_>, b: &Value<'_>| match comparison {
            Comparison::Equal => a.equals(b),
            Comparison::NotEqual => !a.equals(b),
            Comparison::Same => a.is(b),
            Comparison::NotSame => !a.is(b),
            Comparison::Less => a.is_less(b),
            Comparison::AtMost => a.is_less(b) || a.equals(b),
            Comparison::Greater => b.is_less(a),
            Comparison::AtLeast => b.is_less(a) || b.equals(a),
        };
        let is_of_size = matches!(comparison, Comparison::Less | Comparison::AtMost | Comparison::Greater | Comparison::AtLeast);
        let also = match rest {
            [c] if is_of_size => holds(b, c),
            _ => true,
        };
        Ok(Value::Bool(also && holds(a, b)))
    }

    /// `starts_with` and `ends_with`: of exactly two texts, else null (flagd.md 2.2).
    fn two_texts(&self, args: &'r Args, holds: fn(&str, &str) -> bool, scope: Scope<'_, 'r>) -> Result<Value<'r>, Spent> {
        let operands = self.arguments(args, scope)?;
        let [Value::Text(text), Value::Text(part)] = &operands[..] else { return Ok(Value::Null) };
        self.spend_on(part.as_str().len())?;
        Ok(Value::Bool(holds(text.as_str(), part.as_str())))
    }

    /// Version, operator, version; null if any of them is none (flagd.md 2.2).
    fn sem_ver(&self, args: &'r Args, scope: Scope<'_, 'r>) -> Result<Value<'r>, Spent> {
        let operands = self.arguments(args, scope)?;
        let [found, Value::Text(operator), wanted] = &operands[..] else { return Ok(Value::Null) };
        self.spend_on(found.size() + wanted.size())?;
        let mut texts = [Buffer::default(), Buffer::default()];
        let [found_text, wanted_text] = &mut texts;
        let (Some(found), Some(wanted)) = (version_of(found, found_text), version_of(wanted, wanted_text)) else { return Ok(Value::Null) };
        Ok(found.holds(operator.as_str(), wanted).map_or(Value::Null, Value::Bool))
    }

    /// `in` a text, or among the elements of a list. An element that is a list is a range of numbers, from its first to its second.
    fn within(&self, args: &'r Args, scope: Scope<'_, 'r>) -> Result<Value<'r>, Spent> {
        let operands = self.arguments(args, scope)?;
        let [needle, hay, ..] = &operands[..] else { return Ok(Value::Bool(false)) };
        self.spend_on(needle.size())?;
        Ok(Value::Bool(match hay {
            Value::Text(hay) => {
                self.spend_on(hay.as_str().len())?;
                let mut text = Buffer::default();
                match needle {
                    Value::Text(Text::Lent(needle)) => hay.as_str().contains(needle),
                    Value::Text(_) | Value::Number(_) | Value::Bool(_) => {
                        text.push(needle);
                        hay.as_str().contains(text.as_str())
                    }
                    Value::Null | Value::List(_) | Value::Object(_) => false,
                }
            }
            Value::List(elements) => {
                self.spend(elements.len())?;
                elements.iter().any(|element| is_element(needle, &element))
            }
            _ => false,
        }))
    }

    fn missing(&self, args: &'r Args, scope: Scope<'_, 'r>) -> Result<Value<'r>, Spent> {
        let keys = self.arguments(args, scope)?;
        let missing = match &keys[..] {
            // As JavaScript has it: a list of keys is not one key.
            [Value::List(keys), ..] => self.not_there(keys.iter(), scope)?,
            keys => self.not_there(keys.iter().cloned(), scope)?,
        };
        Ok(Value::list(missing))
    }

    /// Those that are missing, unless as many as are needed are there.
    fn missing_some(&self, args: &'r Args, scope: Scope<'_, 'r>) -> Result<Value<'r>, Spent> {
        let operands = self.arguments(args, scope)?;
        let [needed, Value::List(keys), ..] = &operands[..] else { return Ok(Value::list([])) };
        let missing = self.not_there(keys.iter(), scope)?;
        let found = keys.len() - missing.len();
        Ok(Value::list(if needed.to_number() > found as f64 { missing } else { Vec::new() }))
    }

    fn not_there(&self, keys: impl Iterator<Item = Value<'r>>, scope: Scope<'_, 'r>) -> Result<Vec<Value<'r>>, Spent> {
        let mut missing = Vec::new();
        for key in keys {
            self.spend(1)?;
            if self.find(&self.path(&key)?, scope)?.is_none() {
                missing.push(key);
            }
        }
        Ok(missing)
    }
}

/// Values, and bytes of texts, as steps.
fn weight(json: &Json) -> usize {
    match json {
        Json::String(text) => 1 + text.len() / BYTES_A_STEP,
        Json::Array(elements) => 1 + elements.iter().map(weight).sum::<usize>(),
        Json::Object(fields) => 1 + fields.iter().map(|(key, field)| key.len() / BYTES_A_STEP + weight(field)).sum::<usize>(),
        _ => 1,
    }
}

/// A number is also equal to a text that reads so; everything else is of one type.
fn is_element(needle: &Value<'_>, element: &Value<'_>) -> bool {
    match (needle, element) {
        (needle, Value::List(range)) => {
            let [low, high] = [0, 1].map(|place| range.get(place).map_or(f64::NAN, |bound| bound.to_number()));
            (low..=high).contains(&needle.to_number())
        }
        (Value::Number(number), Value::Number(_) | Value::Text(_)) => match element {
            Value::Text(text) => text.as_str().parse() == Ok(*number),
            other => other.to_number() == *number,
        },
        (Value::Null, Value::Null) => true,
        (needle, element) => needle.is(element),
    }
}

/// A version out of a text, or out of a number: `1.2` is 1.2.0.
fn version_of<'t>(value: &'t Value<'_>, text: &'t mut Buffer) -> Option<Version<'t>> {
    match value {
        Value::Text(text) => Version::parse(text.as_str()),
        Value::Number(_) => {
            text.push(value);
            Version::parse(text.as_str())
        }
        _ => None,
    }
}

/// Without an operand a sum is 0, a product 1, the least and the largest are null; of one alone a difference is its opposite.
fn calculate(arithmetic: Arithmetic, operands: &[Value<'_>]) -> Option<f64> {
    let mut numbers = operands.iter().map(Value::to_number);
    match arithmetic {
        Arithmetic::Sum => Some(numbers.fold(0.0, |sum, number| sum + number)),
        Arithmetic::Product => Some(numbers.product()),
        Arithmetic::Difference if operands.len() == 1 => numbers.next().map(|number| 0.0 - number),
        Arithmetic::Difference => Some(numbers.next().map_or(0.0, |first| numbers.fold(first, |rest, number| rest - number))),
        Arithmetic::Quotient => Some(numbers.next().map_or(0.0, |first| numbers.fold(first, |rest, number| rest / number))),
        Arithmetic::Remainder => numbers.next().zip(numbers.next()).map(|(a, b)| a % b),
        Arithmetic::Least => numbers.reduce(|least, number| if number < least { number } else { least }),
        Arithmetic::Largest => numbers.reduce(|largest, number| if number > largest { number } else { largest }),
    }
}
