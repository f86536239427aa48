/* What an answer must look like: tools, response formats, grammars. */
#include "api/serve/openai_request.h"

static bool refuse_value(struct openai_reader *p, const char *param, const char *values)
{
    return openai_refuse(p->error, ERROR_INVALID_REQUEST, "invalid_value", param,
                         "Invalid value for '%s'. Supported values are: %s.", param, values);
}

static bool grammar_set(struct openai_reader *p, enum generation_grammar kind, const char *param, struct str text)
{
    struct generation *g = &p->request->common;
    if (g->grammar_kind != GENERATION_FREE)
        return openai_refuse(p->error, ERROR_INVALID_REQUEST, "invalid_parameter_combination", param,
                             "'response_format' and 'grammar' cannot both be given.");
    if (text.size > LIMIT_GRAMMAR_BYTES)
        return openai_refuse(p->error, ERROR_INVALID_REQUEST, "string_above_max_length", param,
                             "Invalid '%s': it takes %zu bytes; at most %zu are taken.", param, text.size,
                             LIMIT_GRAMMAR_BYTES);
    g->grammar_kind = kind;
    g->grammar = text;
    return true;
}

bool openai_take_response_format(struct openai_reader *p, yyjson_val *value)
{
    if (!yyjson_is_obj(value))
        return openai_refuse_type(p->error, p->name, "an object", value);
    yyjson_val *format = yyjson_obj_get(value, "json_schema");
    if (!OPENAI_ONCE(value, p->name, p->error, STR("type"), STR("json_schema")) ||
        !OPENAI_ONCE(format, "response_format.json_schema", p->error, STR("name"), STR("schema"), STR("strict")))
        return false;
    yyjson_val *type = yyjson_obj_get(value, "type");
    if (yyjson_equals_str(type, "text"))
        return true;
    if (yyjson_equals_str(type, "json_object"))
        return grammar_set(p, GENERATION_JSON_SCHEMA, p->name, STR("{}"));
    if (!yyjson_equals_str(type, "json_schema"))
        return refuse_value(p, "response_format.type", "'text', 'json_object' and 'json_schema'");
    yyjson_val *schema = yyjson_obj_get(format, "schema");
    struct str text;
    if (!schema || yyjson_is_null(schema))
        return openai_refuse(p->error, ERROR_INVALID_REQUEST, "missing_required_parameter",
                             "response_format.json_schema.schema",
                             "Missing required parameter: 'response_format.json_schema.schema'.");
    if (!yyjson_is_obj(schema))
        return openai_refuse_type(p->error, "response_format.json_schema.schema", "an object", schema);
    return openai_json_write(p, schema, &text) &&
           grammar_set(p, GENERATION_JSON_SCHEMA, "response_format.json_schema.schema", text);
}

bool openai_take_grammar(struct openai_reader *p, yyjson_val *value)
{
    struct str text;
    if (!openai_take_text(value, p->name, LIMIT_GRAMMAR_BYTES, &text, p->error))
        return false;
    return text.size == 0 || grammar_set(p, GENERATION_GBNF, p->name, text);
}

static bool name_valid(yyjson_val *name)
{
    struct str s = yyjson_is_str(name) ? openai_json_str(name) : (struct str){0};
    if (s.size == 0 || s.size > LIMIT_NAME_BYTES)
        return false;
    for (size_t i = 0; i < s.size; i++) {
        char c = s.data[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && c != '_' && c != '-')
            return false;
    }
    return true;
}

static bool tool_check(struct openai_reader *p, yyjson_val *tool)
{
    yyjson_val *function = yyjson_obj_get(tool, "function");
    yyjson_val *parameters = yyjson_obj_get(function, "parameters");
    yyjson_val *description = yyjson_obj_get(function, "description");
    if (!OPENAI_ONCE(tool, p->name, p->error, STR("type"), STR("function")) ||
        !OPENAI_ONCE(function, "tools.function", p->error, STR("name"), STR("description"), STR("parameters"),
                     STR("strict")))
        return false;
    if (!yyjson_equals_str(yyjson_obj_get(tool, "type"), "function"))
        return refuse_value(p, "tools.type", "'function'");
    if (!name_valid(yyjson_obj_get(function, "name")))
        return openai_refuse(p->error, ERROR_INVALID_REQUEST, "invalid_value", "tools.function.name",
                             "Invalid 'tools.function.name': it must be 1 to %u letters, digits, '_' and '-'.",
                             LIMIT_NAME_BYTES);
    if (parameters && !yyjson_is_null(parameters) && !yyjson_is_obj(parameters))
        return openai_refuse_type(p->error, "tools.function.parameters", "an object", parameters);
    if (description && !yyjson_is_null(description) && !yyjson_is_str(description))
        return openai_refuse_type(p->error, "tools.function.description", "a string", description);
    if (yyjson_is_null(description))
        (void)yyjson_set_strn(description, "", 0); /* none; templates know no null there */
    return true;
}

bool openai_take_tools(struct openai_reader *p, yyjson_val *value)
{
    size_t i, n;
    yyjson_val *tool;
    if (!yyjson_is_arr(value))
        return openai_refuse_type(p->error, p->name, "an array of objects", value);
    if (yyjson_arr_size(value) > LIMIT_TOOLS)
        return openai_refuse(p->error, ERROR_INVALID_REQUEST, "array_above_max_length", p->name,
                             "Invalid '%s': array too long. Expected an array with maximum length %u, but got an array "
                             "with length %zu instead.",
                             p->name, LIMIT_TOOLS, yyjson_arr_size(value));
    yyjson_arr_foreach(value, i, n, tool)
    {
        if (!tool_check(p, tool))
            return false;
    }
    p->tools = yyjson_arr_size(value) > 0 ? value : NULL;
    return true;
}

bool openai_take_tool_choice(struct openai_reader *p, yyjson_val *value)
{
    struct generation *g = &p->request->common;
    if (yyjson_is_str(value)) {
        g->tool_choice = openai_json_str(value);
        return yyjson_equals_str(value, "none") || yyjson_equals_str(value, "auto") ||
               yyjson_equals_str(value, "required") ||
               refuse_value(p, p->name, "'none', 'auto', 'required' and the name of a function");
    }
    yyjson_val *type = yyjson_obj_get(value, "type"), *function = yyjson_obj_get(value, "function");
    if (!OPENAI_ONCE(value, p->name, p->error, STR("type"), STR("function")) ||
        !OPENAI_ONCE(function, p->name, p->error, STR("name")))
        return false;
    if (type && !yyjson_equals_str(type, "function"))
        return refuse_value(p, "tool_choice.type", "'function'");
    yyjson_val *name = yyjson_obj_get(function, "name");
    if (!name_valid(name))
        return openai_refuse_type(p->error, p->name, "a string or an object that names a function", value);
    p->tool_only = openai_json_str(name);
    g->tool_choice = STR("required");
    return true;
}

/* Only the one that tool_choice names, and it is required. */
static bool tools_narrow(struct openai_reader *p)
{
    size_t i, n;
    yyjson_val *tool;
    yyjson_arr_foreach(p->tools, i, n, tool)
    {
        struct str text;
        if (!str_equal(openai_json_str(yyjson_obj_get(yyjson_obj_get(tool, "function"), "name")), p->tool_only))
            continue;
        if (!openai_json_write(p, tool, &text))
            return false;
        char *array = arena_alloc(p->arena, text.size + 2);
        if (!array)
            return openai_refuse_memory(p->error);
        array[0] = '[';
        memcpy(array + 1, text.data, text.size);
        array[text.size + 1] = ']';
        p->request->common.tools = (struct str){array, text.size + 2};
        return true;
    }
    return openai_refuse(p->error, ERROR_INVALID_REQUEST, "invalid_value", "tool_choice",
                         "Invalid value for 'tool_choice': there is no tool of the name that it gives.");
}

bool openai_tools_check(struct openai_reader *p)
{
    struct generation *g = &p->request->common;
    if (!p->tools) {
        if (g->tool_choice.size == 0)
            return true;
        return str_equal(g->tool_choice, STR("none")) ||
               openai_refuse(p->error, ERROR_INVALID_REQUEST, "invalid_parameter_combination", "tool_choice",
                             "'tool_choice' is only allowed when 'tools' are specified.");
    }
    if (g->grammar_kind != GENERATION_FREE)
        return openai_refuse(p->error, ERROR_INVALID_REQUEST, "invalid_parameter_combination", "tools",
                             "'tools' together with 'response_format' or 'grammar' is not supported with this server.");
    return p->tool_only.size > 0 ? tools_narrow(p) : openai_json_write(p, p->tools, &g->tools);
}
