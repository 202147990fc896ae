//! Validation of RequestAuthentication.

use super::check;

#[test]
fn rules_have_an_issuer_and_keys_that_can_be_had() {
    let rule = |rule: &str| format!("{{jwtRules: [{{{rule}}}]}}");
    let issuer = "issuer: \"https://issuer.example.com\"";
    let cases = [
        (rule(issuer), ""),
        (rule("issuer: somebody"), "or say where its keys are"),
        (
            rule("jwksUri: \"https://a.com/keys\""),
            "issuer: has no value",
        ),
        (rule("issuer: a, jwksUri: \"https://a.com/keys\""), ""),
        (
            rule("issuer: a, jwksUri: \"ftp://a.com/keys\""),
            "not a URL",
        ),
        (
            rule("issuer: a, jwksUri: \"https://me@a.com/keys\""),
            "not a URL",
        ),
        (rule("issuer: a, jwks: \"{}\""), "no list \"keys\""),
        (rule("issuer: a, jwks: \"{\""), "is no JSON"),
        (
            rule("issuer: a, jwks: '{\"keys\": [{\"kty\": \"oct\"}]}'"),
            "",
        ),
        (
            rule("issuer: a, jwks: '{\"keys\": [{\"kty\": \"RSA\"}]}'"),
            "",
        ),
        (
            rule("issuer: a, jwks: '{\"keys\": []}', jwksUri: \"https://a.com\""),
            "together with jwksUri",
        ),
        (
            rule(&format!("{issuer}, fromHeaders: [{{name: \"x y\"}}]")),
            "not a header's name",
        ),
        (
            rule(&format!("{issuer}, fromParams: [\"\"]")),
            "has no value",
        ),
        (rule(&format!("{issuer}, timeout: 5m")), "not a duration"),
        (rule(&format!("{issuer}, timeout: 1.5s")), ""),
        (
            rule(&format!("{issuer}, jwksURI: x")),
            "did you mean jwksUri",
        ),
        (
            "{selector: {matchLabels: {a: b}}, targetRefs: [{kind: Service, name: x}]}".to_owned(),
            "keep one of them",
        ),
        (
            "{targetRefs: [{kind: Pod, name: x}]}".to_owned(),
            "can't be targeted",
        ),
        (
            "{targetRefs: [{kind: Service, group: networking.istio.io, name: x}]}".to_owned(),
            "has no Service",
        ),
    ];
    let cases: Vec<_> = cases
        .iter()
        .map(|(spec, words)| (spec.as_str(), *words))
        .collect();
    check("security.istio.io/v1", "RequestAuthentication", &cases);
}
