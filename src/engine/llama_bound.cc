/* See llama_bound.h. */
#include "engine/llama_bound.h"

#include "jinja/lexer.h"
#include "llama-grammar.h"

#include <cstdlib>
#include <ctime>
#include <malloc.h>
#include <new>
#include <stdexcept>
#include <utility>
#include <vector>

/* AddressSanitizer's runtime has an operator new that comes before ours, and these. */
extern "C" {
int __sanitizer_install_malloc_and_free_hooks(void (*)(const volatile void *, size_t), void (*)(const volatile void *))
    __attribute__((weak));
size_t __sanitizer_get_allocated_size(const volatile void *) __attribute__((weak));
void __lsan_ignore_object(const void *) __attribute__((weak));
}

namespace
{

constexpr int64_t BYTES_MAX = INT64_C(64) * 1024 * 1024;
/* Of the 8 MiB that a thread has at least; the rest is for what does not allocate on its way down. */
constexpr uintptr_t STACK_BYTES_MAX = UINT64_C(2) * 1024 * 1024;
constexpr unsigned CALLS_PER_LOOK = 64; /* at the clock: a look takes as long as some allocations */
/* Beyond, for who catches what is thrown; the library sometimes does, and goes on: it comes again then. */
constexpr int64_t GRACE_BYTES = INT64_C(1) * 1024 * 1024;
constexpr uint64_t GRACE_NS = UINT64_C(5) * 1000 * 1000;
constexpr uintptr_t GRACE_STACK_BYTES = UINT64_C(256) * 1024;

struct bound_state {
    bool on, reached;
    unsigned calls;
    int64_t bytes, bytes_max;
    uint64_t end_ns;
    uintptr_t stack_end;  /* it grows downwards */
    uintptr_t stack_told; /* where it was when it was last thrown for; 0: it was above the end since */
};

/* Never allocated: operator new looks at it. */
__attribute__((tls_model("initial-exec"))) thread_local bound_state bound;

class bound_error : public std::bad_alloc
{
  public:
    const char *what() const noexcept override { return LLAMA_BOUND_TEXT; }
};

uint64_t thread_ns()
{
    timespec t{};
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<uint64_t>(t.tv_sec) * 1000000000 + static_cast<uint64_t>(t.tv_nsec);
}

uintptr_t stack_now()
{
    return reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
}

bool stack_reached()
{
    uintptr_t now = stack_now();
    if (now >= bound.stack_end) {
        bound.stack_told = 0;
        return false;
    }
    if (bound.stack_told > 0 && now + GRACE_STACK_BYTES >= bound.stack_told)
        return false;
    bound.stack_told = now;
    bound.reached = true;
    return true;
}

bool bound_reached(size_t size)
{
    bound.bytes += static_cast<int64_t>(size);
    if (stack_reached())
        return true;
    bool look = ++bound.calls % CALLS_PER_LOOK == 0 || size >= 65536;
    uint64_t now_ns = look ? thread_ns() : 0;
    if (bound.bytes <= bound.bytes_max && now_ns <= bound.end_ns)
        return false;
    bound.bytes_max =
        bound.bytes > bound.bytes_max ? bound.bytes - static_cast<int64_t>(size) + GRACE_BYTES : bound.bytes_max;
    bound.end_ns = now_ns > bound.end_ns ? now_ns + GRACE_NS : bound.end_ns;
    bound.reached = true;
    return true;
}

void on_malloc(const volatile void *p, size_t size)
{
    if (!bound.on || !bound_reached(size))
        return;
    bound.bytes -= static_cast<int64_t>(size);
    __lsan_ignore_object(const_cast<const void *>(p)); /* nobody gets it */
    throw bound_error();
}

void on_free(const volatile void *p)
{
    if (bound.on && p)
        bound.bytes -= static_cast<int64_t>(__sanitizer_get_allocated_size(p));
}

bool sanitizer_hook()
{
    return __sanitizer_install_malloc_and_free_hooks && __sanitizer_get_allocated_size && __lsan_ignore_object &&
           __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free) > 0;
}

const bool sanitized = sanitizer_hook();

} // namespace

void *operator new(std::size_t size)
{
    void *p = std::malloc(size > 0 ? size : 1);
    if (!p)
        throw std::bad_alloc();
    size_t usable = bound.on ? malloc_usable_size(p) : 0;
    if (bound.on && bound_reached(usable)) {
        bound.bytes -= static_cast<int64_t>(usable);
        std::free(p);
        throw bound_error();
    }
    return p;
}

void operator delete(void *p) noexcept
{
    if (bound.on && p)
        bound.bytes -= static_cast<int64_t>(malloc_usable_size(p));
    std::free(p);
}

void operator delete(void *p, std::size_t) noexcept
{
    operator delete(p);
}

llama_bound::llama_bound(uint64_t ns)
{
    bound = {true, false, 0, 0, BYTES_MAX, thread_ns() + ns, stack_now() - STACK_BYTES_MAX, 0};
}

llama_bound::~llama_bound()
{
    bound.on = false;
}

bool llama_bound_reached()
{
    return std::exchange(bound.reached, false);
}

/* --- JSON --- */

namespace
{

constexpr unsigned JSON_DEPTH_MAX = 64;
constexpr unsigned JSON_REFERENCES_MAX = 1024; /* which may lead from one to the next */
constexpr size_t JSON_NAME_BYTES_MAX = 1024;   /* of a member, of what a reference names */
constexpr size_t JSON_PATTERN_BYTES_MAX = 4096;

/* The end of the string that begins behind `at`: the place of its closing quote. */
size_t string_end(const std::string &json, size_t at)
{
    while (at < json.size() && json[at] != '"')
        at += json[at] == '\\' ? 2 : 1;
    return at;
}

[[noreturn]] void refuse(const char *text)
{
    throw std::runtime_error(text);
}

} // namespace

void llama_json_check(const std::string &json)
{
    unsigned depth = 0, references = 0;
    size_t name = 0, name_size = 0; /* the last member's */
    for (size_t i = 0; i < json.size(); i++) {
        char c = json[i];
        if (c == '"') {
            size_t begin = i + 1, end = string_end(json, begin), size = end - begin;
            bool is_name = end + 1 < json.size() && json[end + 1] == ':';
            bool reference = !is_name && json.compare(name, name_size, "$ref") == 0;
            bool pattern = !is_name && json.compare(name, name_size, "pattern") == 0;
            if ((is_name || reference) && size > JSON_NAME_BYTES_MAX)
                refuse("a member's name, or a reference, is too long");
            if (pattern && size > JSON_PATTERN_BYTES_MAX)
                refuse("a pattern is too long");
            if (reference && ++references > JSON_REFERENCES_MAX)
                refuse("there are too many references");
            name = is_name ? begin : 0;
            name_size = is_name ? size : 0;
            i = end;
        } else if ((c == '[' || c == '{') && ++depth > JSON_DEPTH_MAX) {
            refuse("it is nested too deeply");
        } else if ((c == ']' || c == '}') && depth > 0) {
            depth--;
        }
    }
}

/* --- templates --- */

namespace
{

/* Of one {{ expression }} or {% statement %}: the library's code recurses over both, 840 bytes of stack for an operator
 * and some thousand for a bracket. Of 71 templates in the field the longest has about a hundred, with four brackets. */
constexpr unsigned BLOCK_TOKENS_MAX = 1024;
constexpr unsigned BLOCK_BRACKETS_MAX = 64;

int bracket(jinja::token::type type)
{
    switch (type) {
    case jinja::token::open_paren:
    case jinja::token::open_square_bracket:
    case jinja::token::open_curly_bracket:
        return 1;
    case jinja::token::close_paren:
    case jinja::token::close_square_bracket:
    case jinja::token::close_curly_bracket:
        return -1;
    default:
        return 0;
    }
}

bool outside(jinja::token::type type)
{
    return type == jinja::token::text || type == jinja::token::comment || type == jinja::token::close_statement ||
           type == jinja::token::close_expression;
}

} // namespace

void llama_template_check(const char *text)
{
    jinja::lexer lexer;
    unsigned tokens = 0;
    int brackets = 0;
    for (const auto &token : lexer.tokenize(text).tokens) {
        bool end = outside(token.t);
        tokens = end ? 0 : tokens + 1;
        brackets = end ? 0 : brackets + bracket(token.t);
        if (tokens > BLOCK_TOKENS_MAX || brackets > static_cast<int>(BLOCK_BRACKETS_MAX))
            refuse("its template has an expression that is too long");
    }
}

/* --- grammars --- */

namespace
{

constexpr unsigned GROUPS_DEPTH_MAX = 256;
constexpr unsigned RULES_DEPTH_MAX = 1024;
constexpr uint64_t RULE_VISITS_MAX = 1000 * 1000;
constexpr unsigned CLASS_ELEMENTS_MAX = 256; /* each of which every token of the vocabulary is compared with */

/* The library's parser recurses for each parenthesis. */
void groups_check(const std::string &text)
{
    unsigned depth = 0;
    char closing = 0; /* within a literal or a class: what ends it */
    for (size_t i = 0; i < text.size(); i++) {
        char c = text[i];
        if (closing && c == '\\' && closing != '\n')
            i++;
        else if (closing)
            closing = c == closing ? '\0' : closing;
        else if (c == '"' || c == '[' || c == '#')
            closing = c == '"' ? '"' : c == '[' ? ']' : '\n';
        else if (c == '(' && ++depth > GROUPS_DEPTH_MAX)
            refuse("its groups are nested too deeply");
        else if (c == ')' && depth > 0)
            depth--;
    }
}

bool is_end(const llama_grammar_element &e)
{
    return e.type == LLAMA_GRETYPE_END || e.type == LLAMA_GRETYPE_ALT;
}

/* Walks the rules as the library's search for left recursion does, which follows a rule anew for each way that leads
 * to it: how many steps that will take. */
class rule_walk
{
  public:
    explicit rule_walk(const llama_grammar_rules &rules)
        : rules(rules), visits(rules.size()), open(rules.size()), empty(rules.size())
    {
    }

    void all()
    {
        uint64_t sum = 0;
        for (size_t i = 0; i < rules.size(); i++)
            if (visits[i] == 0 && (sum += rule(i, 0)) > RULE_VISITS_MAX)
                refuse("its rules lead to each other in too many ways");
    }

  private:
    const llama_grammar_rules &rules;
    std::vector<uint64_t> visits; /* 0: not known yet */
    std::vector<bool> open, empty;

    bool has_empty_alternative(const llama_grammar_rule &rule)
    {
        bool start = true;
        for (const auto &e : rule) {
            if (is_end(e) && start)
                return true;
            start = is_end(e);
        }
        return false;
    }

    uint64_t rule(size_t index, unsigned depth)
    {
        if (open[index])
            refuse("a rule begins with itself");
        if (visits[index] > 0)
            return visits[index];
        if (depth > RULES_DEPTH_MAX)
            refuse("its rules are nested too deeply");
        open[index] = true;
        empty[index] = has_empty_alternative(rules[index]);
        bool follow = true;
        uint64_t n = 1;
        for (const auto &e : rules[index]) {
            bool reference = e.type == LLAMA_GRETYPE_RULE_REF;
            if (reference && follow && (n += rule(e.value, depth + 1)) > RULE_VISITS_MAX)
                refuse("its rules lead to each other in too many ways");
            follow = is_end(e) || (reference && follow && empty[e.value]);
        }
        open[index] = false;
        visits[index] = n;
        return n;
    }
};

void classes_check(const llama_grammar_rules &rules)
{
    for (const auto &rule : rules) {
        unsigned n = 0;
        for (const auto &e : rule) {
            n = e.type == LLAMA_GRETYPE_CHAR_ALT || e.type == LLAMA_GRETYPE_CHAR_RNG_UPPER ? n + 1 : 0;
            if (n > CLASS_ELEMENTS_MAX)
                refuse("a class of characters is too long");
        }
    }
}

} // namespace

void llama_grammar_check(const llama_vocab *vocab, const std::string &grammar)
{
    groups_check(grammar);
    llama_bound bound(LLAMA_GRAMMAR_NS);
    llama_grammar_parser parser(vocab);
    bool parsed = parser.parse(grammar.c_str());
    auto root = parser.symbol_ids.find("root");
    if (!parsed || parser.rules.empty() || root == parser.symbol_ids.end())
        refuse("it is no GBNF grammar with a rule 'root', or it repeats too much");
    rule_walk(parser.rules).all();
    classes_check(parser.rules);
    llama_grammar_stack rules = parser.c_rules();
    llama_grammar *made = llama_grammar_init_impl(vocab, rules.data(), rules.size(), root->second);
    if (!made)
        refuse("it cannot be followed");
    llama_grammar_free_impl(made);
}
