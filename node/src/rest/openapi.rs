//! `GET /v1/openapi.json`: the list of all endpoints as an OpenAPI 3.1 document.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::answer::{Answer, Keep, Refusal};
use super::problem::{Code, ProblemJson};
use super::routes::{Content, Endpoint, Place, Verb, endpoints};

const DESCRIPTION: &str = "A Causeway node: Esplora's interface, also under /api, and under /v1 what is Causeway's own. \
                           Amounts are satoshi, hashes are shown reversed as Bitcoin does, and whole numbers may be up to \
                           2^64 - 1: read them with 64 bits. Answers may get more fields. Errors under /v1 are JSON objects, \
                           elsewhere text; what a parameter of a path or query does not permit is an error of status 400. \
                           HEAD is answered as GET without the body.";

static DOCUMENT: LazyLock<String> = LazyLock::new(|| document().to_string());

/// The document.
pub(super) fn answer() -> Result<Answer, Refusal> {
    Ok(Answer::written_json(&DOCUMENT, Keep::FiveSeconds))
}

/// Writes the document.
pub(super) fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for endpoint in endpoints() {
        let verb = match endpoint.verb {
            Verb::Get => "get",
            Verb::Post => "post",
        };
        paths.entry(endpoint.path).or_default().insert(verb.to_owned(), operation(endpoint, verb, &mut generator));
    }
    let mut schemas = generator.take_definitions(true);
    if let Some(code) = schemas.get_mut("Problem").and_then(|problem| problem.pointer_mut("/properties/code")) {
        // No enumeration, which would make clients refuse a new one.
        code["examples"] = Code::ALL.iter().map(|code| code.text()).collect();
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Causeway node",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
            "license": { "name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE") },
        },
        "servers": [{ "url": "/" }, { "url": "/api" }],
        "paths": paths,
        "components": { "schemas": schemas },
    })
}

fn operation(endpoint: &Endpoint, verb: &str, generator: &mut SchemaGenerator) -> Value {
    let id = format!("{verb}{}", endpoint.path).replace(['/', '-', '.'], "_").replace(['{', '}'], "");
    let mut operation = json!({
        "operationId": id,
        "summary": endpoint.summary,
        "tags": [if endpoint.is_ours() { "causeway" } else { "esplora" }],
        "parameters": parameters(endpoint, generator),
        "responses": responses(endpoint, generator),
    });
    if let Some(body) = &endpoint.body {
        operation["requestBody"] = json!({ "required": true, "content": content(body, generator) });
    }
    operation
}

fn parameters(endpoint: &Endpoint, generator: &mut SchemaGenerator) -> Vec<Value> {
    let mut parameters = Vec::new();
    for place in endpoint.places().filter_map(|name| Place::ALL.iter().find(|place| place.name == name)) {
        parameters.push(json!({
            "name": place.name, "in": "path", "required": true, "description": place.description,
            "schema": (place.schema)(generator),
        }));
    }
    for parameter in endpoint.query {
        parameters.push(json!({
            "name": parameter.name, "in": "query", "required": parameter.required,
            "description": parameter.description, "schema": (parameter.schema)(generator),
        }));
    }
    parameters
}

fn responses(endpoint: &Endpoint, generator: &mut SchemaGenerator) -> Value {
    let mut responses = Map::new();
    let answer = content(&endpoint.answer, generator);
    responses.insert("200".to_owned(), json!({ "description": "The answer.", "content": answer }));
    let of_body = if endpoint.body.is_some() { Endpoint::OF_BODY } else { &[] };
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in endpoint.refusals.iter().chain(of_body).chain(Endpoint::ALWAYS) {
        by_status.entry(code.status().as_u16()).or_default().push(*code);
    }
    for (status, codes) in by_status {
        let reasons: Vec<String> = codes.iter().map(|code| format!("{}: {}", code.text(), code.hint())).collect();
        let content = if endpoint.is_ours() {
            let schema = generator.subschema_for::<ProblemJson>();
            json!({ "application/json": { "schema": schema } })
        } else {
            json!({ "text/plain": { "schema": { "type": "string" } } })
        };
        let codes: Vec<&str> = codes.iter().map(|code| code.text()).collect();
        let response = json!({ "description": reasons.join(". "), "content": content, "x-codes": codes });
        responses.insert(status.to_string(), response);
    }
    Value::Object(responses)
}

fn content(content: &Content, generator: &mut SchemaGenerator) -> Value {
    let mut content_json = Map::new();
    content_json.insert(content.media_type.to_owned(), json!({ "schema": (content.schema)(generator) }));
    Value::Object(content_json)
}
