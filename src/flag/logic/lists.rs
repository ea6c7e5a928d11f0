//! Operators over lists and texts. Each element of a list that is read or made is a step, each piece of a text too, so that no rule makes
//! much of a short context.

use super::evaluate::{Data, Frame, Run, Scope, Spent};
use super::program::{Args, Iteration, Node};
use super::value::{Buffer, List, Value};

impl<'r> Run<'r> {
    /// `map`, `filter`, `all`, `some` and `none`. What is no list is an empty one; of that, `all` does not hold.
    pub(super) fn each(&self, iteration: Iteration, [list, body]: &'r [Node; 2], scope: Scope<'_, 'r>) -> Result<Value<'r>, Spent> {
        let elements = self.elements(list, scope)?;
        let mut kept = Vec::new();
        let mut frame = Frame { data: Data::Element(Value::Null), outer: scope, sees_outer: iteration != Iteration::Map };
        for element in elements.iter() {
            self.spend(1)?;
            frame.data = Data::Element(element.clone());
            let value = self.value(body, Some(&frame))?;
            match (iteration, value.is_truthy()) {
                (Iteration::Map, _) => kept.push(value),
                (Iteration::Filter, true) => kept.push(element),
                (Iteration::Filter, false) | (Iteration::All, true) | (Iteration::Some | Iteration::None, false) => {}
                (Iteration::All | Iteration::None, _) => return Ok(Value::Bool(false)),
                (Iteration::Some, true) => return Ok(Value::Bool(true)),
            }
        }
        Ok(match iteration {
            Iteration::Map | Iteration::Filter => Value::list(kept),
            Iteration::All => Value::Bool(elements.len() > 0),
            Iteration::Some => Value::Bool(false),
            Iteration::None => Value::Bool(true),
        })
    }

    /// The accumulator keeps the type that it begins with, as in flagd's daemon; elements that are null are passed over.
    pub(super) fn reduce(&self, [list, body, initial]: &'r [Node; 3], scope: Scope<'_, 'r>) -> Result<Value<'r>, Spent> {
        let mut accumulator = self.value(initial, scope)?;
        let elements = match self.value(list, scope)? {
            Value::List(elements) => elements,
            _ => return Ok(Value::Number(0.0)),
        };
        for current in elements.iter().filter(Value::is_there) {
            self.spend(1)?;
            let of_type = accumulator.clone();
            let frame = Frame { data: Data::Reduction { current, accumulator }, outer: scope, sees_outer: false };
            let value = self.value(body, Some(&frame))?;
            accumulator = match of_type {
                Value::Bool(_) => Value::Bool(value.is_truthy()),
                Value::Number(_) => Value::Number(value.to_number()),
                Value::Text(_) if !matches!(value, Value::Text(_)) => self.text_of(&value)?,
                _ => value,
            };
        }
        Ok(accumulator)
    }

    fn elements(&self, list: &'r Node, scope: Scope<'_, 'r>) -> Result<List<'r>, Spent> {
        Ok(match self.value(list, scope)? {
            Value::List(elements) => elements,
            _ => List::Lent(&[]),
        })
    }

    fn text_of(&self, value: &Value<'r>) -> Result<Value<'r>, Spent> {
        self.spend(value.size())?;
        let mut text = Buffer::default();
        text.push(value);
        Ok(Value::made(text.as_str()))
    }

    /// One text of all. Of several, white space at both ends is dropped, as in flagd's daemon.
    pub(super) fn cat<'b>(&self, args: &'r Args, scope: Scope<'_, 'r>, text: &'b mut Buffer) -> Result<&'b str, Spent> {
        let is_several = match args {
            Args::Listed(nodes) => {
                for node in nodes {
                    let value = self.value(node, scope)?;
                    self.append(&value, text)?;
                }
                nodes.len() > 1
            }
            Args::Given(_) => {
                let values = self.arguments(args, scope)?;
                values.iter().try_for_each(|value| self.append(value, text))?;
                values.len() > 1
            }
        };
        Ok(if is_several { text.as_str().trim() } else { text.as_str() })
    }

    fn append(&self, value: &Value<'r>, text: &mut Buffer) -> Result<(), Spent> {
        let before = text.len();
        text.push(value);
        self.spend_on(text.len() - before)
    }

    /// Text, start, and how many characters, all of the rest if that is not said. A start below 0 counts from the end; a count below 0 leaves
    /// so many out at the end. A start beyond the ends gives the whole text, as in flagd's daemon.
    pub(super) fn substr(&self, args: &'r Args, scope: Scope<'_, 'r>) -> Result<Value<'r>, Spent> {
        let operands = self.arguments(args, scope)?;
        let [text, start, rest @ ..] = &operands[..] else { return Ok(operands.into_iter().next().unwrap_or(Value::Null)) };
        let mut whole = Buffer::default();
        self.append(text, &mut whole)?;
        let whole = whole.as_str();
        let length = whole.chars().count() as i64;
        let start = start.to_number() as i64;
        let start = if start < 0 { start.saturating_add(length) } else { start };
        if !(0..=length).contains(&start) {
            return Ok(Value::made(whole));
        }
        let end = match rest {
            [count] => match count.to_number() as i64 {
                count if count < 0 => count.saturating_add(length),
                count => start.saturating_add(count),
            },
            _ => length,
        };
        let taken = usize::try_from(end.min(length) - start).unwrap_or_default();
        let part: String = whole.chars().skip(start as usize).take(taken).collect();
        Ok(Value::made(&part))
    }

    /// One list of all; what is no list is an element of it.
    pub(super) fn merge(&self, args: &'r Args, scope: Scope<'_, 'r>) -> Result<Value<'r>, Spent> {
        let mut merged = Vec::new();
        for operand in self.arguments(args, scope)? {
            match operand {
                Value::List(elements) => {
                    self.spend(elements.len())?;
                    merged.extend(elements.iter());
                }
                value => merged.push(value),
            }
        }
        Ok(Value::list(merged))
    }
}
