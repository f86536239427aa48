/* See llama_common.h. Every function catches everything. */
#include "engine/llama_common.h"

#include "engine/llama_bound.h"

#include "chat.h"
#include "common.h"
#include "json-schema-to-grammar.h"
#include "json.h"
#include "llama-adapter.h"
#include "llama.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <vector>

struct llama_templates {
    common_chat_templates_ptr templates;
    bool tools = false;
};

struct llama_chat {
    common_chat_params params;
    common_chat_parser_params parser;
    bool plain = false; /* the answer is what it is: nothing to parse */
    bool tools = false;
    bool advance = false; /* its grammar begins with the end of the prompt */
    std::string text;     /* of the answer so far */
    common_chat_msg message;
    std::vector<std::string> ids;
    bool told = false;
    bool one_call = false;
    bool enough = false; /* another call has begun */
};

namespace
{

void explain(char *error, const char *text)
{
    std::snprintf(error, LLAMA_COMMON_ERROR_BYTES, "%s", text);
    for (char *c = error; *c; c++)
        if (static_cast<unsigned char>(*c) < ' ' || static_cast<unsigned char>(*c) > '~')
            *c = ' ';
}

template <typename Function> auto guarded(char *error, Function function) -> decltype(function())
{
    (void)llama_bound_reached();
    try {
        return function();
    } catch (const std::exception &e) {
        if (error)
            explain(error, llama_bound_reached() ? LLAMA_BOUND_TEXT : e.what());
    } catch (...) {
        if (error)
            explain(error, "it failed without a reason");
    }
    return {};
}

std::string text_of(const char *data, size_t size)
{
    return size > 0 ? std::string(data, size) : std::string();
}

/* Some templates' triggers are patterns, some words, some tokens: as common_sampler_init has them. */
std::string word_escape(const std::string &word)
{
    std::string escaped;
    for (char c : word) {
        if (std::strchr(".^$|()*+?[]{}\\", c))
            escaped += '\\';
        escaped += c;
    }
    return escaped;
}

llama_sampler *sampler_lazy(const common_chat_params &params, const llama_vocab *vocab)
{
    std::vector<std::string> patterns;
    std::vector<llama_token> tokens;
    for (const auto &trigger : params.grammar_triggers) {
        if (trigger.type == COMMON_GRAMMAR_TRIGGER_TYPE_TOKEN)
            tokens.push_back(trigger.token);
        else if (trigger.type == COMMON_GRAMMAR_TRIGGER_TYPE_WORD)
            patterns.push_back(word_escape(trigger.value));
        else if (trigger.type == COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN)
            patterns.push_back(trigger.value);
        else
            patterns.push_back("^" + trigger.value + "$");
    }
    std::vector<const char *> pointers;
    for (const auto &pattern : patterns)
        pointers.push_back(pattern.c_str());
    return llama_sampler_init_grammar_lazy_patterns(vocab, params.grammar.c_str(), "root", pointers.data(),
                                                    pointers.size(), tokens.data(), tokens.size());
}

std::vector<llama_token> tokenize(const llama_vocab *vocab, const std::string &text)
{
    std::vector<llama_token> tokens(text.size() + 8);
    int32_t n = llama_tokenize(vocab, text.data(), static_cast<int32_t>(text.size()), tokens.data(),
                               static_cast<int32_t>(tokens.size()), false, true);
    tokens.resize(n > 0 ? static_cast<size_t>(n) : 0);
    return tokens;
}

/* What the template has put at the end of the prompt is the beginning of what the grammar describes. */
void sampler_advance(llama_sampler *sampler, const common_chat_params &params, const llama_vocab *vocab)
{
    bool first = true;
    for (llama_token token : tokenize(vocab, params.generation_prompt)) {
        char piece[256];
        int32_t n = llama_token_to_piece(vocab, token, piece, sizeof piece, 0, true);
        bool added = first && n > 0 && piece[0] == ' ' && params.generation_prompt[0] != ' '; /* by the vocabulary */
        first = false;
        if (!added)
            llama_sampler_accept(sampler, token);
    }
}

/* One that the library survives. */
common_json json_of(const char *data, size_t size)
{
    std::string text = text_of(data, size);
    llama_json_check(text);
    return common_json::parse(text);
}

/* As llama.cpp's server has it: any object. The templates' code would take a schema that says nothing for none. */
common_json schema_of(const char *data, size_t size)
{
    common_json schema = json_of(data, size);
    if (schema.is_object() && schema.empty())
        schema["type"] = "object";
    return schema;
}

void grammar_replace(llama_chat *c, const std::string &grammar)
{
    c->params.grammar = grammar;
    c->params.grammar_lazy = false;
    c->advance = false;
}

/* What was asked for holds, whatever the template's code made of it. For most templates that lets the model put ```json
 * around its answer, to be taken away again behind it; cut off or listed token by token that is no JSON. Where nothing
 * but the JSON may come, no fence is let in to begin with. A GBNF grammar it does not look at. */
void grammar_settle(llama_chat *c, const llama_chat_request *request, const common_json &schema)
{
    const std::string &made = c->params.grammar;
    bool fenced = !c->tools && !c->params.supports_thinking && made.find("```") != std::string::npos;
    if (request->schema_size > 0 && (made.empty() || fenced)) {
        grammar_replace(c, json_schema_to_grammar(schema));
        c->plain = !c->params.supports_thinking;
    } else if (request->grammar_size > 0 && made.empty()) {
        grammar_replace(c, text_of(request->grammar, request->grammar_size));
    }
}

bool diff_tell(llama_chat *c, const common_chat_msg_diff &diff, const llama_chat_sink *sink)
{
    c->told = true;
    if (!diff.reasoning_content_delta.empty() &&
        !sink->part(sink->ctx, LLAMA_CHAT_REASONING, 0, "", "", diff.reasoning_content_delta.data(),
                    diff.reasoning_content_delta.size()))
        return false;
    if (!diff.content_delta.empty() &&
        !sink->part(sink->ctx, LLAMA_CHAT_TEXT, 0, "", "", diff.content_delta.data(), diff.content_delta.size()))
        return false;
    if (diff.tool_call_index == std::string::npos)
        return true;
    /* The library's grammars for many templates allow several whatever it is asked for. */
    c->enough = c->enough || (c->one_call && diff.tool_call_index > 0);
    if (c->enough)
        return true;
    const common_chat_tool_call &call = diff.tool_call_delta;
    return sink->part(sink->ctx, LLAMA_CHAT_TOOL, static_cast<uint32_t>(diff.tool_call_index), call.id.c_str(),
                      call.name.c_str(), call.arguments.data(), call.arguments.size());
}

bool parse_and_tell(llama_chat *c, bool last, const llama_chat_sink *sink)
{
    common_chat_msg now;
    try {
        now = common_chat_parse(c->text, !last, c->parser);
    } catch (const std::exception &) {
        if (!last || c->told) /* more may make sense of it; or what is told stands */
            return true;
        return sink->part(sink->ctx, LLAMA_CHAT_TEXT, 0, "", "", c->text.data(), c->text.size());
    }
    if (now.empty())
        return true;
    now.set_tool_call_ids(c->ids, [sink]() {
        char id[LLAMA_CHAT_ID_BYTES];
        sink->id_make(id);
        return std::string(id);
    });
    std::vector<common_chat_msg_diff> diffs = common_chat_msg_diff::compute_diffs(c->message, now);
    c->message = now;
    for (const auto &diff : diffs)
        if (!diff_tell(c, diff, sink))
            return false;
    return true;
}

} // namespace

llama_templates *llama_templates_open(const llama_model *model, bool *ret_tools)
{
    *ret_tools = false;
    return guarded(nullptr, [&]() -> llama_templates * {
        const char *text = llama_model_chat_template(model, nullptr);
        const char *with_tools = llama_model_chat_template(model, "tool_use");
        if (!text)
            return nullptr;
        llama_bound bound(LLAMA_OPEN_NS);
        llama_template_check(text);
        if (with_tools)
            llama_template_check(with_tools);
        auto t = std::make_unique<llama_templates>();
        t->templates = common_chat_templates_init(model, "");
        if (!common_chat_templates_was_explicit(t->templates.get()))
            return nullptr;
        t->tools = common_chat_templates_get_caps(t->templates.get())["supports_tools"];
        *ret_tools = t->tools;
        return t.release();
    });
}

void llama_templates_close(llama_templates *t)
{
    delete t;
}

bool llama_schema_check(const char *schema, size_t size, char *error)
{
    return guarded(error, [&]() -> bool {
        llama_bound bound(LLAMA_GRAMMAR_NS);
        (void)json_schema_to_grammar(schema_of(schema, size));
        return true;
    });
}

llama_chat *llama_chat_open(const llama_templates *t, const llama_chat_request *request, const char **ret_prompt,
                            size_t *ret_prompt_size, char *error)
{
    return guarded(error, [&]() -> llama_chat * {
        auto c = std::make_unique<llama_chat>();
        llama_bound bound(LLAMA_TEMPLATE_NS);
        common_chat_templates_inputs inputs;
        inputs.messages = common_chat_msgs_parse_oaicompat(json_of(request->messages, request->messages_size));
        for (const auto &message : inputs.messages) /* which templates may take apart again */
            for (const auto &call : message.tool_calls)
                llama_json_check(call.arguments);
        if (request->tools_size > 0)
            inputs.tools = common_chat_tools_parse_oaicompat(json_of(request->tools, request->tools_size));
        if (request->tool_choice_size > 0)
            inputs.tool_choice =
                common_chat_tool_choice_parse_oaicompat(text_of(request->tool_choice, request->tool_choice_size));
        common_json schema;
        if (request->schema_size > 0) {
            schema = schema_of(request->schema, request->schema_size);
            inputs.json_schema = schema.dump();
        }
        inputs.grammar = text_of(request->grammar, request->grammar_size);
        inputs.parallel_tool_calls = !request->one_call;
        c->one_call = request->one_call;
        inputs.reasoning_format = COMMON_REASONING_FORMAT_DEEPSEEK;
        c->tools = !inputs.tools.empty() && inputs.tool_choice != COMMON_CHAT_TOOL_CHOICE_NONE;
        c->advance = c->tools || !inputs.json_schema.empty();
        c->params = common_chat_templates_apply(t->templates.get(), inputs);
        c->plain = !c->advance && !c->params.supports_thinking;
        grammar_settle(c.get(), request, schema);
        c->parser = common_chat_parser_params(c->params);
        c->parser.reasoning_format = inputs.reasoning_format;
        c->parser.parse_tool_calls = c->tools;
        if (!c->params.parser.empty())
            c->parser.parser.load(c->params.parser);
        *ret_prompt = c->params.prompt.data();
        *ret_prompt_size = c->params.prompt.size();
        return c.release();
    });
}

void llama_chat_close(llama_chat *c)
{
    delete c;
}

bool llama_chat_sampler(llama_chat *c, const llama_vocab *vocab, llama_sampler **ret_sampler, char *error)
{
    *ret_sampler = nullptr;
    return guarded(error, [&]() -> bool {
        if (c->params.grammar.empty())
            return true;
        llama_grammar_check(vocab, c->params.grammar);
        llama_sampler *sampler = c->params.grammar_lazy
                                     ? sampler_lazy(c->params, vocab)
                                     : llama_sampler_init_grammar(vocab, c->params.grammar.c_str(), "root");
        if (!sampler) {
            explain(error, "its grammar cannot be made");
            return false;
        }
        *ret_sampler = sampler;
        llama_bound bound(LLAMA_GRAMMAR_NS);
        if (c->advance && !c->params.grammar_lazy)
            sampler_advance(sampler, c->params, vocab);
        return true;
    });
}

const char *llama_chat_stop(const llama_chat *c, size_t index)
{
    return index < c->params.additional_stops.size() ? c->params.additional_stops[index].c_str() : nullptr;
}

size_t llama_chat_preserved(const llama_chat *c, const llama_vocab *vocab, int32_t *tokens, size_t max)
{
    return guarded(nullptr, [&]() -> size_t {
        size_t n = 0;
        for (const auto &text : c->params.preserved_tokens) {
            std::vector<llama_token> ids = tokenize(vocab, text);
            if (ids.size() == 1 && n < max)
                tokens[n++] = ids[0];
        }
        return n;
    });
}

bool llama_chat_add(llama_chat *c, const char *text, size_t size, bool last, const llama_chat_sink *sink)
{
    return guarded(nullptr, [&]() -> bool {
        if (c->plain)
            return sink->part(sink->ctx, LLAMA_CHAT_TEXT, 0, "", "", text, size);
        c->text.append(text, size);
        llama_bound bound(LLAMA_GRAMMAR_NS);
        return parse_and_tell(c, last, sink);
    });
}

bool llama_chat_enough(const llama_chat *c)
{
    return c->enough;
}

uint32_t llama_chat_calls(const llama_chat *c)
{
    return static_cast<uint32_t>(c->message.tool_calls.size());
}

llama_sampler *llama_grammar_sampler(const llama_vocab *vocab, const char *grammar, size_t size, bool schema,
                                     char *error)
{
    return guarded(error, [&]() -> llama_sampler * {
        std::string text = text_of(grammar, size);
        if (schema) {
            llama_bound bound(LLAMA_GRAMMAR_NS);
            text = json_schema_to_grammar(schema_of(grammar, size));
        }
        llama_grammar_check(vocab, text);
        llama_sampler *sampler = llama_sampler_init_grammar(vocab, text.c_str(), "root");
        if (!sampler)
            explain(error, "it cannot be followed");
        return sampler;
    });
}

bool llama_sampler_accept_safe(llama_sampler *s, int32_t token, char *error)
{
    return guarded(error, [&]() -> bool {
        llama_bound bound(LLAMA_GRAMMAR_NS);
        llama_sampler_accept(s, token);
        return true;
    });
}

bool llama_sampler_apply_safe(llama_sampler *s, llama_token_data_array *tokens, char *error)
{
    return guarded(error, [&]() -> bool {
        llama_bound bound(LLAMA_GRAMMAR_NS);
        llama_sampler_apply(s, tokens);
        return true;
    });
}

size_t llama_adapter_matrices(const llama_adapter_lora *lora, ggml_tensor **tensors, size_t max)
{
    size_t n = 0;
    for (const auto &pair : lora->ab_map)
        for (ggml_tensor *tensor : {pair.second.a, pair.second.b}) {
            if (n < max)
                tensors[n] = tensor;
            n++;
        }
    return n;
}

float llama_adapter_alpha(const llama_adapter_lora *lora)
{
    return lora->alpha;
}
