//! JsonLogic as JSON to a [`Node`], with every problem at its path.

use serde_json::{Map, Value as Json};

use super::super::context::TARGETING_KEY;
use super::super::limits;
use super::super::node::quoted;
use super::super::problem::{Path as Place, Problems, did_you_mean};
use super::fractional::bucket_of;
use super::program::{Args, Arithmetic, Buckets, Comparison, Computed, Fractional, Iteration, Leads, Members, Node, Path, Var};
use super::references::REFERENCE;
use super::value::Value;

/// How the operands of an operator are compiled.
enum Make {
    /// Those of one that looks at them one after the other, and at some perhaps not at all.
    Listed(fn(Box<[Node]>) -> Node),
    Args(fn(Args) -> Node),
    Own(fn(&mut Compiler<'_>, &Json, usize, Place<'_>) -> Node),
}

/// Standard JsonLogic as flagd's schema has it, and flagd's own. flagd answers each question to a flag with another one with PARSE_ERROR
/// (flagd.md 2.2); here the flag is refused.
const OPERATORS: [(&str, Make); 38] = [
    ("!", Make::Args(Node::Not)),
    ("!!", Make::Args(Node::Truth)),
    ("!=", Make::Args(|args| Node::Compare(Comparison::NotEqual, args))),
    ("!==", Make::Args(|args| Node::Compare(Comparison::NotSame, args))),
    ("%", Make::Args(|args| Node::Arithmetic(Arithmetic::Remainder, args))),
    ("*", Make::Args(|args| Node::Arithmetic(Arithmetic::Product, args))),
    ("+", Make::Args(|args| Node::Arithmetic(Arithmetic::Sum, args))),
    ("-", Make::Args(|args| Node::Arithmetic(Arithmetic::Difference, args))),
    ("/", Make::Args(|args| Node::Arithmetic(Arithmetic::Quotient, args))),
    ("<", Make::Args(|args| Node::Compare(Comparison::Less, args))),
    ("<=", Make::Args(|args| Node::Compare(Comparison::AtMost, args))),
    ("==", Make::Args(|args| Node::Compare(Comparison::Equal, args))),
    ("===", Make::Args(|args| Node::Compare(Comparison::Same, args))),
    (">", Make::Args(|args| Node::Compare(Comparison::Greater, args))),
    (">=", Make::Args(|args| Node::Compare(Comparison::AtLeast, args))),
    ("?:", Make::Listed(Node::If)),
    ("all", Make::Own(|compiler, operands, level, place| compiler.each(Iteration::All, operands, level, place))),
    ("and", Make::Listed(Node::And)),
    ("cat", Make::Args(Node::Cat)),
    ("ends_with", Make::Args(Node::EndsWith)),
    ("filter", Make::Own(|compiler, operands, level, place| compiler.each(Iteration::Filter, operands, level, place))),
    ("fractional", Make::Own(|compiler, operands, level, place| compiler.fractional(operands, level, place))),
    ("if", Make::Listed(Node::If)),
    ("in", Make::Own(|compiler, operands, level, place| compiler.within(operands, level, place))),
    ("map", Make::Own(|compiler, operands, level, place| compiler.each(Iteration::Map, operands, level, place))),
    ("max", Make::Args(|args| Node::Arithmetic(Arithmetic::Largest, args))),
    ("merge", Make::Args(Node::Merge)),
    ("min", Make::Args(|args| Node::Arithmetic(Arithmetic::Least, args))),
    ("missing", Make::Own(|compiler, operands, level, place| Node::Missing(compiler.keys(operands, level, place)))),
    ("missing_some", Make::Own(|compiler, operands, level, place| Node::MissingSome(compiler.keys(operands, level, place)))),
    ("none", Make::Own(|compiler, operands, level, place| compiler.each(Iteration::None, operands, level, place))),
    ("or", Make::Listed(Node::Or)),
    ("reduce", Make::Own(|compiler, operands, level, place| compiler.reduce(operands, level, place))),
    ("sem_ver", Make::Args(Node::SemVer)),
    ("some", Make::Own(|compiler, operands, level, place| compiler.each(Iteration::Some, operands, level, place))),
    ("starts_with", Make::Args(Node::StartsWith)),
    ("substr", Make::Args(Node::Substr)),
    ("var", Make::Own(|compiler, operands, level, place| compiler.var(operands, level, place))),
];

pub(super) struct Compiler<'c> {
    problems: &'c mut Problems,
    operations: usize,
    /// Operators over lists around the node that is compiled.
    iterating: usize,
    /// Those that it is in the body of, so that `var` means an element; and those of them that let nothing else be seen.
    bodies: usize,
    blind: usize,
    /// Paths that are read of the context, each once. Those within an operator over a list are among them: an element may lack what the
    /// context has.
    pub(super) reads: Vec<Path>,
    /// A path is computed, or the whole context is read.
    pub(super) reads_everything: bool,
    pub(super) reads_time: bool,
}

impl<'c> Compiler<'c> {
    pub(super) fn new(problems: &'c mut Problems) -> Self {
        Self { problems, operations: 0, iterating: 0, bodies: 0, blind: 0, reads: Vec::new(), reads_everything: false, reads_time: false }
    }

    /// An object of one key is an operator; every other object is itself, as are lists without an operator in them and everything else.
    pub(super) fn node(&mut self, json: &Json, level: usize, place: Place<'_>) -> Node {
        self.operations += 1;
        if self.operations > limits::TARGETING_OPERATIONS {
            if self.operations == limits::TARGETING_OPERATIONS + 1 {
                let most = limits::TARGETING_OPERATIONS;
                self.problems.found(place, format!("more than {most} operations and operands"), format!("at most {most}"));
            }
            return Node::Literal(Json::Null);
        }
        if level > limits::TARGETING_NESTING && matches!(json, Json::Array(_) | Json::Object(_)) {
            self.problems.found(place, format!("a value at level {level}"), format!("at most {} levels", limits::TARGETING_NESTING));
            return Node::Literal(Json::Null);
        }
        match json {
            Json::Object(fields) => match only(fields) {
                Some((operator, operands)) => self.operator(operator, operands, level + 1, place.key(operator)),
                None => Node::Literal(json.clone()),
            },
            Json::Array(elements) if !is_literal(json) => Node::List(self.nodes(elements, level, place)),
            json => Node::Literal(json.clone()),
        }
    }

    fn nodes(&mut self, elements: &[Json], level: usize, place: Place<'_>) -> Box<[Node]> {
        elements.iter().enumerate().map(|(index, element)| self.node(element, level + 1, place.index(index))).collect()
    }

    fn args(&mut self, operands: &Json, level: usize, place: Place<'_>) -> Args {
        match operands {
            Json::Array(elements) => Args::Listed(self.nodes(elements, level, place)),
            one => Args::Given(Box::new(self.node(one, level, place))),
        }
    }

    /// Of an operator that looks at its operands one after the other.
    fn listed(&mut self, operands: &Json, level: usize, place: Place<'_>) -> Box<[Node]> {
        match operands {
            Json::Array(elements) => self.nodes(elements, level, place),
            one => Box::new([self.node(one, level, place)]),
        }
    }

    fn operator(&mut self, name: &str, operands: &Json, level: usize, place: Place<'_>) -> Node {
        match OPERATORS.iter().find(|(known, _)| *known == name) {
            Some((_, Make::Listed(make))) => make(self.listed(operands, level, place)),
            Some((_, Make::Args(make))) => make(self.args(operands, level, place)),
            Some((_, Make::Own(make))) => make(self, operands, level, place),
            None => {
                self.unknown(name, operands, place);
                Node::Literal(Json::Null)
            }
        }
    }

    fn unknown(&mut self, name: &str, operands: &Json, place: Place<'_>) {
        if name == REFERENCE {
            let found = format!("a reference to {}", operands.as_str().map_or_else(|| operands.to_string(), quoted));
            self.problems.found(place, found, "the name of an entry of `$evaluators` in the same document");
        } else {
            let hint = did_you_mean(name, OPERATORS.iter().map(|(known, _)| *known));
            let found = format!("the unknown operator {}", quoted(name));
            self.problems.hinted(place, found, "an operator of JsonLogic or of flagd", hint);
        }
    }

    fn var(&mut self, operands: &Json, level: usize, place: Place<'_>) -> Node {
        let (path, default) = match operands {
            Json::Array(elements) => (elements.first().unwrap_or(&Json::Null), elements.get(1).filter(|_| elements.len() == 2)),
            one => (one, None),
        };
        let default = default.map(|default| self.node(default, level + 1, place.index(1)));
        let path = match path {
            Json::Null if self.bodies == 0 && matches!(operands, Json::Null) => return Node::Literal(Json::Null),
            Json::Null => String::new(),
            Json::String(path) => path.clone(),
            Json::Number(index) => index.to_string(),
            Json::Object(fields) if only(fields).is_some() => {
                self.reads_everything = true;
                let path = self.node(path, level + 1, place);
                return Node::Computed(Box::new(Computed { path, default }));
            }
            other => {
                self.problems.found(place, other.to_string(), "the name of an attribute");
                return Node::Literal(Json::Null);
            }
        };
        let path = self.path(&path, place);
        Node::Var(Box::new(Var { path, default }))
    }

    fn path(&mut self, text: &str, place: Place<'_>) -> Path {
        if text.len() > limits::KEY_BYTES {
            self.problems.found(place, quoted(text), format!("a name of at most {} bytes", limits::KEY_BYTES));
        }
        let path = Path::of(text);
        match path.leads {
            _ if self.blind > 0 => {}
            Leads::Everywhere => self.reads_everything |= self.bodies == 0,
            Leads::ToTime | Leads::ToFlagd => self.reads_time = true,
            Leads::ToFlagKey => {}
            Leads::ToAttribute | Leads::ToElement if self.reads.iter().all(|known| known.as_str() != path.as_str()) => {
                self.reads.push(Path::of(text));
            }
            Leads::ToAttribute | Leads::ToElement => {}
        }
        path
    }

    /// Operands of `missing` and `missing_some`, whose keys are paths that are read.
    fn keys(&mut self, operands: &Json, level: usize, place: Place<'_>) -> Args {
        match is_literal(operands) {
            true => names(operands, &mut |name| _ = self.path(name, place)),
            false => self.reads_everything = true,
        }
        self.args(operands, level, place)
    }

    fn within(&mut self, operands: &Json, level: usize, place: Place<'_>) -> Node {
        if let Json::Array(elements) = operands
            && let [needle, Json::Array(list)] = &elements[..]
            && let Some(members) = Members::of(list)
        {
            return Node::InMembers(Box::new((self.node(needle, level + 1, place.index(0)), members)));
        }
        Node::In(self.args(operands, level, place))
    }

    fn each(&mut self, iteration: Iteration, operands: &Json, level: usize, place: Place<'_>) -> Node {
        let [list, body] = self.over_a_list(operands, iteration == Iteration::Map, level, place);
        let is_complete = matches!(operands, Json::Array(elements) if elements.len() > 1);
        match (iteration, is_complete) {
            (Iteration::Map | Iteration::Filter, false) => Node::Literal(Json::Array(Vec::new())),
            _ => Node::Each(iteration, Box::new([list, body])),
        }
    }

    fn reduce(&mut self, operands: &Json, level: usize, place: Place<'_>) -> Node {
        let initial = match operands {
            Json::Array(elements) => elements.get(2),
            _ => None,
        };
        let Some(initial) = initial else { return Node::Literal(0.into()) };
        let initial = self.node(initial, level + 1, place.index(2));
        let [list, body] = self.over_a_list(operands, true, level, place);
        Node::Reduce(Box::new([list, body, initial]))
    }

    /// The list and what is done with each element. One list in another multiplies, and three of them make megabytes of a short context
    /// (platform.md 6.1), so that the third is refused.
    fn over_a_list(&mut self, operands: &Json, is_blind: bool, level: usize, place: Place<'_>) -> [Node; 2] {
        let (list, body) = match operands {
            Json::Array(elements) => (elements.first().unwrap_or(&Json::Null), elements.get(1).unwrap_or(&Json::Null)),
            one => (one, &Json::Null),
        };
        if self.iterating == limits::TARGETING_ITERATIONS {
            let most = limits::TARGETING_ITERATIONS;
            let found = format!("operators over lists within one another, {} levels", most + 1);
            self.problems.found(place, found, format!("at most {most} of map, filter, reduce, all, some and none"));
            return [Node::Literal(Json::Null), Node::Literal(Json::Null)];
        }
        // The list may be the result of another such operator, which is work of the same kind.
        self.iterating += 1;
        let list = self.node(list, level + 1, place.index(0));
        self.bodies += 1;
        self.blind += usize::from(is_blind);
        let body = self.node(body, level + 1, place.index(1));
        self.blind -= usize::from(is_blind);
        self.bodies -= 1;
        self.iterating -= 1;
        [list, body]
    }

    /// A bucket is a list, so that the first operand is the unit if it is anything else.
    fn fractional(&mut self, operands: &Json, level: usize, place: Place<'_>) -> Node {
        let Json::Array(elements) = operands else {
            let args = self.args(operands, level, place);
            _ = self.path(TARGETING_KEY, place);
            return Node::Fractional(Box::new(Fractional { unit: None, buckets: Buckets::Computed(args) }));
        };
        let (unit, buckets) = match &elements[..] {
            [Json::Array(_), ..] | [] => (None, &elements[..]),
            [unit, buckets @ ..] => (Some(unit), buckets),
        };
        let first = usize::from(unit.is_some());
        let fractional = if buckets.iter().all(is_literal) {
            let unit = unit.map(|unit| self.node(unit, level + 1, place.index(0)));
            let fixed = |bucket| bucket_of(&Value::of(bucket)).map(|(_, weight)| (bucket[0].clone(), weight));
            Fractional { unit, buckets: buckets.iter().map(fixed).collect::<Option<_>>().map_or(Buckets::Void, Buckets::Fixed) }
        } else if buckets.iter().all(|bucket| matches!(bucket, Json::Array(parts) if !parts.is_empty())) {
            let unit = unit.map(|unit| self.node(unit, level + 1, place.index(0)));
            let parts = buckets.iter().enumerate().map(|(index, bucket)| self.args(bucket, level + 1, place.index(first + index)));
            Fractional { unit, buckets: Buckets::Spelled(parts.collect()) }
        } else {
            Fractional { unit: None, buckets: Buckets::Computed(self.args(operands, level, place)) }
        };
        // Without a unit it is the targeting key; and what is computed may turn out to be a bucket, so that there is none.
        if !matches!(fractional.unit, Some(Node::Cat(_) | Node::Literal(_))) {
            _ = self.path(TARGETING_KEY, place);
        }
        Node::Fractional(Box::new(fractional))
    }
}

fn only(fields: &Map<String, Json>) -> Option<(&String, &Json)> {
    fields.iter().next().filter(|_| fields.len() == 1)
}

/// Whether there is no operator in it.
fn is_literal(json: &Json) -> bool {
    match json {
        Json::Array(elements) => elements.iter().all(is_literal),
        Json::Object(fields) => only(fields).is_none(),
        _ => true,
    }
}

/// Texts and numbers in lists of whatever depth.
fn names(json: &Json, found: &mut dyn FnMut(&str)) {
    match json {
        Json::String(name) => found(name),
        Json::Number(index) => found(&index.to_string()),
        Json::Array(elements) => elements.iter().for_each(|element| names(element, found)),
        _ => {}
    }
}
