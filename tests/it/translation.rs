//! What a flag means is what its translation means: to our own evaluator of flagd's format, and to flagd's own engine in Rust.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use flagd_evaluation_engine::{FeatureFlag, FlagParser, Operator as Engine};
use open_feature::{EvaluationContext, EvaluationContextFieldValue as Field, StructValue, Value as TheirValue};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value as Json, json};
use yardarm::flag::{
    CompiledFlag, Condition, Context, Document, Flag, Hash, Lookup, Obstacle, Operator, Segments, Serve, Split, Test, Translation, compile,
    translate,
};

use crate::flag_laws::{Others, context, flag, segments};

const KEY: &str = "checkout";

/// The same flag without what flagd's format has no word for. A flag keeps its `targeting`.
fn sayable(mut flag: Flag) -> Flag {
    flag.max_staleness = None;
    for rule in &mut flag.rules {
        rule.when.iter_mut().for_each(sayable_condition);
        if let Serve::Split(split) = &mut rule.serve {
            sayable_split(split);
        }
    }
    if let Some(split) = &mut flag.default_split {
        sayable_split(split);
    }
    flag
}

fn sayable_condition(condition: &mut Condition) {
    let Test::Attribute { attribute, operator } = &mut condition.test else { return };
    sayable_name(attribute);
    if matches!(operator, Operator::Matches(_) | Operator::Before(_) | Operator::After(_) | Operator::Cidr(_)) {
        *operator = Operator::Exists(true);
    }
}

fn sayable_split(split: &mut Split) {
    split.hash = Hash::Murmur3;
    split.by.as_mut().map(sayable_name);
}

fn sayable_name(attribute: &mut String) {
    if attribute.contains('.') {
        *attribute = "z".to_owned();
    }
}

fn translated(flag: &Flag, compiled: &CompiledFlag) -> Result<Translation, Obstacle> {
    translate(compiled, flag, &Others)
}

/// The name of the variant that a flag serves; `None`: the caller's default.
fn served(flag: &CompiledFlag, context: &Context, flags: &dyn Lookup) -> Option<String> {
    flag.decide(context, flags).variant.map(|variant| variant.name.clone())
}

/// A translation as a flag of ours.
fn read_back(translation: &Translation) -> CompiledFlag {
    let document = json!({ "flags": { KEY: without_empty_default(translation.to_json("test")) } });
    let document = Document::parse(&document.to_string()).unwrap_or_else(|problems| panic!("{problems}\n{document}"));
    compile(KEY, &document.flags[KEY], &Segments::none()).unwrap_or_else(|problems| panic!("{problems}\n{:?}", translation.targeting))
}

/// On the wire there is always a text, and the empty one is none.
fn without_empty_default(mut flag: Json) -> Json {
    let fields = flag.as_object_mut().unwrap();
    if fields["defaultVariant"] == "" {
        fields.remove("defaultVariant");
    }
    flag
}

/// By flagd's engine; `Err`: it broke off.
fn served_by_engine(engine: &Engine, translation: &Translation, context: &Context) -> Result<Option<String>, String> {
    let document = json!({ "flags": { KEY: translation.to_json("test") } });
    let parsed = FlagParser::parse_string(&document.to_string()).map_err(|error| format!("{error:?}"))?;
    let FeatureFlag { state, default_variant, targeting, .. } = &parsed.flags[KEY];
    if state == "DISABLED" {
        return Ok(None);
    }
    let gave = match targeting {
        None => None,
        Some(targeting) => engine.apply(KEY, &targeting.to_string(), &theirs(context)).map_err(|error| format!("{error:?}"))?,
    };
    Ok(gave.or_else(|| Some(default_variant.clone()).filter(|name| !name.is_empty())))
}

fn theirs(context: &Context) -> EvaluationContext {
    let mut theirs = EvaluationContext { targeting_key: context.targeting_key.clone(), ..EvaluationContext::default() };
    for (name, value) in &context.attributes {
        if let Some(value) = their_value(value) {
            theirs.add_custom_field(name.clone(), Field::Struct(Arc::new(value)));
        }
    }
    theirs
}

/// They have no null: it is left out, as it is natively the same.
fn their_value(json: &Json) -> Option<TheirValue> {
    Some(match json {
        Json::Null => return None,
        Json::Bool(value) => TheirValue::Bool(*value),
        Json::Number(value) => value.as_i64().map_or_else(|| TheirValue::Float(value.as_f64().unwrap()), TheirValue::Int),
        Json::String(value) => TheirValue::String(value.clone()),
        Json::Array(elements) => TheirValue::Array(elements.iter().filter_map(their_value).collect()),
        Json::Object(fields) => {
            let fields = fields.iter().filter_map(|(name, value)| Some((name.clone(), their_value(value)?)));
            TheirValue::Struct(StructValue { fields: fields.collect() })
        }
    })
}

/// As an SDK has it: the targeting key is no attribute, and a whole number has a double of its own.
fn of_an_sdk(mut context: Context) -> Context {
    context.attributes.remove("targetingKey");
    context.attributes.values_mut().for_each(as_doubles);
    context
}

fn as_doubles(json: &mut Json) {
    match json {
        Json::Number(number) => {
            let double = number.as_f64().unwrap();
            *json = if double.fract() == 0.0 && double.abs() < 9e15 { (double as i64).into() } else { double.into() };
        }
        Json::Array(elements) => elements.iter_mut().for_each(as_doubles),
        Json::Object(fields) => fields.values_mut().for_each(as_doubles),
        _ => {}
    }
}

#[test]
fn a_translation_serves_what_the_flag_serves_to_every_context() {
    let (segments, engine) = (segments(), Engine::new());
    let [said, unsaid] = [const { AtomicUsize::new(0) }; 2];
    let mut runner = TestRunner::new(ProptestConfig { cases: 4_000, ..ProptestConfig::default() });
    let contexts = proptest::collection::vec(context().prop_map(of_an_sdk), 4);
    runner
        .run(&(flag().prop_map(sayable), proptest::bool::weighted(0.1), contexts), |(flag, is_killed, contexts)| {
            let Ok(compiled) = compile(KEY, &flag, &segments) else { return Ok(()) };
            let compiled = compiled.with_kill(is_killed);
            let Ok(translation) = translated(&flag, &compiled) else {
                unsaid.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            };
            said.fetch_add(1, Ordering::Relaxed);
            let back = read_back(&translation);
            for context in &contexts {
                let expected = served(&compiled, context, &Others);
                let ours = served(&back, context, &Others);
                prop_assert_eq!(&ours, &expected, "ours of {}\n{:?}", translation.to_json("test"), context);
                // A rule of flagd's own is sent as it is: what the engine makes of it is asked in `targeting_laws`.
                if flag.targeting.is_none() {
                    let theirs = served_by_engine(&engine, &translation, context);
                    prop_assert_eq!(theirs, Ok(expected), "theirs of {}\n{:?}", translation.to_json("test"), context);
                }
            }
            Ok(())
        })
        .unwrap();
    let [said, unsaid] = [said, unsaid].map(AtomicUsize::into_inner);
    assert!(said > 4 * unsaid, "{said} flags were said and {unsaid} were not: too few to prove much");
}

#[test]
fn whatever_a_flag_is_a_translation_is_read_or_there_is_none() {
    let segments = segments();
    proptest!(ProptestConfig { cases: 2_000, ..ProptestConfig::default() }, |(flag in flag(), context in context().prop_map(of_an_sdk))| {
        let Ok(compiled) = compile(KEY, &flag, &segments) else { return Ok(()) };
        if let Ok(translation) = translated(&flag, &compiled) {
            let served_back = served(&read_back(&translation), &context, &Others);
            prop_assert_eq!(served_back, served(&compiled, &context, &Others), "{}", translation.to_json("test"));
        }
    });
}
