//! Expressions as users write them: what they give, what they are refused for, what they cost.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

fn environment() -> Environment {
    let item = Shape::object("item", [("key", Shape::text()), ("value", Shape::plain(Type::Int, 0, 1))]);
    let fields = [
        ("name", Shape::plain(Type::String, 40, 2)),
        ("count", Shape::plain(Type::Int, 0, 1)),
        ("ratio", Shape::plain(Type::Double, 0, 1)),
        ("list", Shape::list(Shape::plain(Type::Int, 0, 1), 10)),
        ("words", Shape::list(Shape::text(), 1_000_000)),
        ("items", Shape::list(item, 10)),
        ("labels", Shape::map(Shape::text(), 100)),
        ("port", Shape::dynamic()),
        ("since", Shape::plain(Type::Timestamp, 0, 22)),
        ("wait", Shape::plain(Type::Duration, 0, 4)),
    ];
    Environment::new().with("self", Shape::object("object", fields)).with("any", Shape::dynamic())
}

fn data() -> Json {
    json!({"name": "näme", "count": 3, "ratio": 2, "list": [3, 1, 2], "words": ["b", "a"],
        "items": [{"key": "a", "value": 1}, {"key": "b", "value": 2}], "labels": {"app": "x", "tier": "y"},
        "port": "http", "since": "2024-02-29T12:30:00Z", "wait": "1h30m"})
}

fn run_with(text: &str, limit: u64) -> Result<String, String> {
    let environment = environment();
    let program = environment.compile(text).map_err(|error| format!("compilation failed: {error}"))?;
    let data = data();
    let any = json!({"spec": {"replicas": 2, "x-y": null, "list": [[1], [2]]}});
    let own = Value::of(&data, &environment.variables[0].1.ty);
    let mut inputs = Inputs::new(vec![Some(own), Some(Value::of(&any, &Type::Dyn))]);
    let mut meter = Meter::new(limit);
    let value = program.evaluate(&mut inputs, &mut meter).map_err(|error| error.to_string())?;
    let shown = environment.compile("'%s'.format([any])").map_err(|error| error.to_string())?;
    let mut inputs = Inputs::new(vec![None, Some(value)]);
    let text =
        shown.evaluate(&mut inputs, &mut Meter::new(PER_CALL_LIMIT)).map_err(|error| error.to_string())?;
    Ok(text.as_str().unwrap_or_default().to_owned())
}

fn run(text: &str) -> Result<String, String> {
    run_with(text, PER_CALL_LIMIT)
}

fn gives(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        assert_eq!(run(text).as_deref(), Ok(*expected), "{text}");
    }
}

fn fails(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        let error = run(text).expect_err(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn operators_and_data() {
    gives(&[
        ("1 + 2 * 3 == 7 && !(1 > 2)", "true"),
        ("self.count + 1", "4"),
        ("self.ratio / 4.0", "0.5"),
        ("self.name + '!'", "näme!"),
        ("self.name.size()", "4"),
        ("size(self.list)", "3"),
        ("self.list[1]", "1"),
        ("self.labels['app'] + self.labels.tier", "xy"),
        ("'app' in self.labels && !('none' in self.labels)", "true"),
        ("2 in self.list", "true"),
        ("[1, 2] + [3]", "[1, 2, 3]"),
        ("{'a': 1}.a", "1"),
        ("has(self.count) ? 'yes' : 'no'", "yes"),
        ("type(self.port) == string && self.port == 'http'", "true"),
        ("type(1) == int && type([]) == list && type(self.since) == google.protobuf.Timestamp", "true"),
        ("self.count < 3.5", "true"),
        ("any.spec.replicas == 2", "true"),
        ("any.spec['x-y'] == null", "true"),
        ("-self.count % 2", "-1"),
        ("1u + 2u", "3"),
        ("b'ab' == bytes('ab')", "true"),
        ("any.spec.list == [[1], [2]]", "true"),
        ("self.items == self.items", "true"),
        ("dyn(1) == dyn(1.0)", "true"),
    ]);
}

#[test]
fn macros_and_optionals() {
    gives(&[
        ("self.list.all(x, x > 0)", "true"),
        ("self.list.exists(x, x == 2)", "true"),
        ("self.list.exists_one(x, x > 2)", "true"),
        ("self.list.map(x, x * 2)", "[6, 2, 4]"),
        ("self.list.map(x, x > 1, x * 2)", "[6, 4]"),
        ("self.list.filter(x, x > 1)", "[3, 2]"),
        ("self.labels.all(k, self.labels[k] != '')", "true"),
        ("self.items.exists(i, i.key == 'b' && i.value == 2)", "true"),
        ("[1, 0].exists(x, 1 / x == 1)", "true"),
        ("self.?name.orValue('none')", "näme"),
        ("any.?spec.?none.orValue(7)", "7"),
        ("any.?spec.?replicas.hasValue()", "true"),
        ("self.labels[?'none'].hasValue()", "false"),
        ("optional.of(2).optMap(x, x + 1).value()", "3"),
        ("optional.none().orValue(1)", "1"),
        ("optional.ofNonZeroValue(0).hasValue()", "false"),
        ("[?self.labels[?'none'], 'x']", "[x]"),
    ]);
    fails(&[
        ("optional.none().value()", "optional.none() dereference"),
        ("[1, 0].all(x, 1 / x == 1)", "division by zero"),
        ("self.list[7]", "index out of bounds: 7"),
        ("any.spec.none", "no such key: none"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("any.spec + 1", "no such overload"),
    ]);
}

#[test]
fn libraries_of_kubernetes() {
    gives(&[
        ("self.list.sum() == 6 && self.list.min() == 1 && self.list.max() == 3", "true"),
        ("self.list.isSorted() || [1, 2].isSorted()", "true"),
        ("self.list.indexOf(2)", "2"),
        ("[1, 2, 1].lastIndexOf(1)", "2"),
        ("'abc 123'.find('[0-9]+')", "123"),
        ("'1 22 333'.findAll('[0-9]+', 2)", "[1, 22]"),
        ("'a1'.matches('^[a-z][0-9]$')", "true"),
        ("url('https://user@example.com:80/path/to?a=b&a=c').getHost()", "example.com:80"),
        ("url('https://[::1]:80/x').getHostname()", "::1"),
        ("url('/a?k=1&k=2').getQuery()['k']", "[1, 2]"),
        ("isURL('no url') || isURL('/ok')", "true"),
        ("quantity('1500m').isGreaterThan(quantity('1'))", "true"),
        ("quantity('1Gi').asInteger()", "1073741824"),
        ("quantity('50k').add(20) == quantity('50020')", "true"),
        ("quantity('1').compareTo(quantity('2'))", "-1"),
        ("quantity('1.5').asApproximateFloat()", "1.5"),
        ("isQuantity('1x')", "false"),
        ("ip('127.0.0.1').isLoopback() && ip('::1').family() == 6", "true"),
        ("cidr('10.0.0.0/8').containsIP('10.1.2.3')", "true"),
        ("cidr('10.0.0.0/8').containsCIDR(cidr('10.1.0.0/16'))", "true"),
        ("string(cidr('10.1.2.3/8').masked())", "10.0.0.0/8"),
        ("ip.isCanonical('2001:db8::abcd')", "true"),
        ("isIP('1.2.3') || isCIDR('1.2.3.4/33')", "false"),
        ("!format.dns1123Label().validate('my-name').hasValue()", "true"),
        ("format.named('dns1123Label').value().validate('A').hasValue()", "true"),
        (
            "sets.contains([1, 2], [2]) && sets.intersects([1], [1, 2]) && sets.equivalent([1, 1], [1])",
            "true",
        ),
    ]);
}

#[test]
fn texts_and_times() {
    gives(&[
        ("'a,b,c'.split(',')", "[a, b, c]"),
        ("'a,b,c'.split(',', 2)", "[a, b,c]"),
        ("'abc'.split('', 2)", "[a, bc]"),
        ("['a', 'b'].join('-')", "a-b"),
        ("'aaa'.replace('a', 'b', 2)", "bba"),
        ("'täxt'.substring(1, 3)", "äx"),
        ("'täxt'.charAt(1)", "ä"),
        ("'täxt'.indexOf('x')", "2"),
        ("'abab'.lastIndexOf('ab', 1)", "0"),
        ("' x '.trim()", "x"),
        ("'aB'.lowerAscii() + 'aB'.upperAscii()", "abAB"),
        ("strings.quote('a\"\\n')", "\"a\\\"\\n\""),
        ("'%d %s %.2f %x %e'.format([1, 'a', 2.345, 255, 1000.0])", "1 a 2.35 ff 1.000000e+03"),
        ("self.since.getFullYear() + self.since.getMonth()", "2025"),
        ("self.since.getHours('-02:00')", "10"),
        ("self.since.getDayOfWeek()", "4"),
        ("self.wait == duration('90m')", "true"),
        ("string(self.since + self.wait)", "2024-02-29T14:00:00Z"),
        ("timestamp('2024-03-01T00:00:00Z') - self.since > duration('1h')", "true"),
        ("int('12') + int(3.9)", "15"),
        ("string(1.5) + string(true)", "1.5true"),
        ("double('1.5')", "1.5"),
    ]);
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    assert_eq!(
        run("self.name == 'x' && self.nmae == 'y'"),
        Err("compilation failed: ERROR: <input>:1:25: undefined field 'nmae'\n | self.name == 'x' && self.nmae == 'y'\n | ........................^".to_owned())
    );
    fails(&[
        ("other == 1", "ERROR: <input>:1:1: undeclared reference to 'other' (in container '')"),
        ("self.count > '1'", "found no matching overload for '_>_' applied to '(int, string)'"),
        ("'a' + self.count", "found no matching overload for '_+_' applied to '(string, int)'"),
        ("self.count == 'a'", "found no matching overload for '_==_' applied to '(int, string)'"),
        ("self.name.nothing()", "undeclared reference to 'nothing' (in container '')"),
        ("self.name.contains(1)", "found no matching overload for 'contains' applied to 'string.(int)'"),
        ("self = 42", "Syntax error"),
        ("self.count <", "Syntax error"),
        ("[1, 'a']", "expected type 'int' but found 'string'"),
        ("self.count.all(x, true)", "cannot be range of a comprehension"),
        ("self.name.x", "type 'string' does not support field selection"),
        ("self.name.matches('(')", "error parsing regexp"),
        ("self.list.map(x, x + 'a')", "found no matching overload for '_+_' applied to '(int, string)'"),
    ]);
}

#[test]
fn variables_are_evaluated_once_and_only_when_used() {
    let mut environment = Environment::new().with("object", Shape::dynamic()).with_variables();
    let one = environment.compile("object.a * 2");
    environment.compose("twice", one.as_ref().map_or(Type::Dyn, |program| program.ty().clone()));
    let broken = environment.compile("object.none.none");
    environment.compose("broken", Type::Dyn);
    let composed = [one, broken];
    let data = json!({"a": 2});
    let evaluate = |text: &str| {
        let program = environment.compile(text).map_err(|error| error.to_string())?;
        let inputs = Inputs::new(vec![Some(Value::of(&data, &Type::Dyn))]);
        let mut inputs = inputs.with_variables(&composed);
        let mut meter = Meter::new(PER_CALL_LIMIT);
        let value = program.evaluate(&mut inputs, &mut meter).map_err(|error| error.to_string())?;
        Ok((format!("{value:?}"), meter.spent()))
    };
    assert_eq!(evaluate("variables.twice + variables.twice"), Ok(("Int(8)".to_owned(), 8)));
    assert_eq!(evaluate("variables.broken"), Err("no such key: none".to_owned()));
    let error: Result<(String, u64), String> = evaluate("variables.missing");
    assert!(error.is_err_and(|error| error.contains("undefined field 'missing'")));
}

#[test]
fn what_would_run_for_long_is_cut_off() {
    let nested = "[0,1,2,3,4,5,6,7,8,9].all(a, [0,1,2,3,4,5,6,7,8,9].all(b, [0,1,2,3,4,5,6,7,8,9].all(c, [0,1,2,3,4,5,6,7,8,9].all(d, [0,1,2,3,4,5,6,7,8,9].all(e, [0,1,2,3,4,5,6,7,8,9].all(f, true))))))";
    assert_eq!(run(nested), Err("operation cancelled: actual cost limit exceeded".to_owned()));
    // Nothing hides that nothing is left: no logical operator, no loop.
    assert_eq!(
        run_with(&format!("({nested}) || true"), 1_000),
        Err("operation cancelled: actual cost limit exceeded".to_owned())
    );
}

#[test]
fn deep_nesting_is_refused() {
    for text in ["1+".repeat(9_000) + "1", "(".repeat(400) + "1" + &")".repeat(400), "a".repeat(200_000)] {
        assert!(environment().compile(&text).is_err(), "{} characters", text.len());
    }
}

#[test]
fn estimates_come_from_declared_sizes() {
    let estimate = |text: &str| environment().compile(text).expect("compiles").estimate();
    assert_eq!(estimate("true"), 0);
    assert_eq!(estimate("self.count > 1"), 3);
    // Two to go on, and four to look at each of ten items; one for the result, two for the list.
    assert_eq!(estimate("self.list.all(x, x > 1)"), 2 + 1 + 10 * (2 + 3));
    assert!(estimate("self.words.all(x, self.words.all(y, x == y))") > 10_000_000);
    assert!(estimate("self.name.startsWith('a')") < 10);
}

proptest! {
    #[test]
    fn no_text_panics(text in "[-a-z0-9 .()\\[\\]{}?:|&!<>=+*/%'\"]{0,40}") {
        if let Ok(program) = environment().compile(&text) {
            let _ = program.evaluate(&mut Inputs::new(vec![None, None]), &mut Meter::new(10_000));
        }
    }

    #[test]
    fn arithmetic_agrees(one in any::<i64>(), other in any::<i64>()) {
        let environment = Environment::new().with("a", Shape::dynamic()).with("b", Shape::dynamic());
        for (text, expected) in [
            ("a + b", one.checked_add(other)),
            ("a - b", one.checked_sub(other)),
            ("a * b", one.checked_mul(other)),
            ("a / b", one.checked_div(other)),
            ("a % b", one.checked_rem(other)),
        ] {
            let program = environment.compile(text).expect("compiles");
            let mut inputs = Inputs::new(vec![Some(Value::Int(one)), Some(Value::Int(other))]);
            let result = program.evaluate(&mut inputs, &mut Meter::new(100));
            match expected {
                Some(expected) => prop_assert!(matches!(result, Ok(Value::Int(found)) if found == expected)),
                None => prop_assert!(result.is_err()),
            }
        }
    }
}

#[test]
fn loops_over_two_variables_see_indexes_and_keys() {
    gives(&[
        ("self.list.all(i, v, i < 3 && v > 0)", "true"),
        ("self.labels.all(k, v, k != v)", "true"),
        ("self.words.exists(i, v, i == 1 && v == 'a')", "true"),
        ("self.labels.existsOne(k, v, v == 'y')", "true"),
        ("self.list.transformList(i, v, i * 10 + v)", "[3, 11, 22]"),
        ("self.list.transformList(i, v, i > 0, v)", "[1, 2]"),
        ("self.labels.transformMap(k, v, k + v) == {'app': 'appx', 'tier': 'tiery'}", "true"),
        ("self.labels.transformMap(k, v, v == 'x', v).size()", "1"),
        ("self.labels.transformMapEntry(k, v, {v: k})['x']", "app"),
    ]);
    fails(&[
        ("self.words.transformMapEntry(i, v, {'same': i})", "insert failed: key same already exists"),
        ("self.list.all(i, i, true)", "must not be the same"),
        ("self.list.all(i, v, v + 1)", "expected type 'bool'"),
    ]);
}

#[test]
fn versions_are_read_and_ordered() {
    gives(&[
        ("semver('1.2.3').major() + semver('1.2.3').minor() * 10", "21"),
        ("semver('1.2.3-rc.1').isLessThan(semver('1.2.3'))", "true"),
        ("semver('1.10.0').compareTo(semver('1.9.0'))", "1"),
        ("isSemver('v1.2') || isSemver('01.2.3')", "false"),
        ("semver('v1.2', true) == semver('1.2.0')", "true"),
        ("semver('1.2.3+a') == semver('1.2.3+b')", "true"),
    ]);
}

fn patch(text: &str) -> Result<(Json, String, Vec<String>), String> {
    let environment = environment().with_patches();
    let program = environment.compile(text).map_err(|error| error.to_string())?;
    let data = data();
    let own = Value::of(&data, &environment.variables[0].1.ty);
    let any = json!({"replicas": 2, "labels": {"a/b": "c"}});
    let mut inputs = Inputs::new(vec![Some(own), Some(Value::of(&any, &Type::Dyn))]);
    let value =
        program.evaluate(&mut inputs, &mut Meter::new(PER_CALL_LIMIT)).map_err(|error| error.to_string())?;
    Ok((value.to_json()?, program.ty().to_string(), value.misplaced_types()))
}

#[test]
fn objects_are_made_by_type_where_patches_are() {
    for (text, ty, expected) in [
        ("Object{}", "Object", json!({})),
        (
            "Object{spec: Object.spec{replicas: any.replicas + 1, ?none: any[?'none'], labels: any.labels, items: [Object.spec.items{a: 1.0, b: 1.5, c: b'x'}]}}",
            "Object",
            json!({"spec": {"replicas": 3, "labels": {"a/b": "c"}, "items": [{"a": 1, "b": 1.5, "c": "eA=="}]}}),
        ),
        (
            "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b~c'), value: Object.x{since: self.since, wait: self.wait}}]",
            "list(JSONPatch)",
            json!([{"op": "add", "path": "/metadata/labels/a~1b~0c", "value": {"since": "2024-02-29T12:30:00Z", "wait": "5400s"}}]),
        ),
        (
            "[] + (self.count > 5 ? [] : [JSONPatch{op: 'remove', path: '/a'}])",
            "list(JSONPatch)",
            json!([{"op": "remove", "path": "/a"}]),
        ),
        ("[Object{a: 1}][0].a", "dyn", json!(1)),
        ("has(Object{a: 1}.b) || dyn(Object{a: 1}) == dyn(Object.b{a: 1})", "bool", json!(false)),
        ("Object{a: 1} == Object{a: any.replicas - 1}", "bool", json!(true)),
    ] {
        assert_eq!(patch(text), Ok((expected, ty.to_owned(), Vec::new())), "{text}");
    }
    for (text, expected) in [
        ("Thing{}", "undeclared reference to 'Thing' (in container '')"),
        ("JSONPatch{op: 1}", "expected type of field 'op' is 'string' but provided type is 'int'"),
        ("JSONPatch{operation: ''}", "undefined field 'operation'"),
        ("[JSONPatch{op: 'add'}, 1]", "expected type 'JSONPatch' but found 'int'"),
        ("Object{a: {1: 2}}", "a key of a map is of type int, not string"),
        ("Object{a: quantity('1')}", "type conversion error from 'kubernetes.Quantity' to JSON"),
    ] {
        let error = patch(text).expect_err(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
    fails(&[
        ("Object{} == null", "undeclared reference to 'Object' (in container '')"),
        ("jsonpatch.escapeKey('a') == ''", "undeclared reference to 'jsonpatch.escapeKey'"),
    ]);
}

#[test]
fn types_of_made_objects_are_named_by_their_paths() {
    let (_, _, problems) =
        patch("Object{spec: Object.spec{selector: Object.spec.wrong{a: [Object.spec.selector.a{}]}}}")
            .expect("is made");
    assert_eq!(
        problems,
        [
            "unexpected type name \"Object.spec.wrong\", expected \"Object.spec.selector\", which matches field name path from root Object type"
        ]
    );
    let (_, _, problems) = patch("Object.spec{a: Object.spec.a{}}").expect("is made");
    assert!(problems.is_empty(), "{problems:?}");
}
