/* ONNX Runtime's texts, made fit for people. The first cases are its own words. */
#include "engine/onnx_error.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void test_cleans(void **state)
{
    (void)state;
    static const struct {
        const char *raw, *clean;
    } cases[] = {
        {"", ""},
        {"Load model from memory failed:Protobuf parsing failed.",
         "Load model from memory failed:Protobuf parsing failed."},
        {"/onnxruntime_src/onnxruntime/core/graph/model.cc:180 onnxruntime::Model::Model(onnx::ModelProto&&, const "
         "PathString&, const onnxruntime::IOnnxRuntimeOpSchemaRegistryList*, const onnxruntime::logging::Logger&, "
         "const onnxruntime::ModelOptions&) Unsupported model IR version: 99, max supported IR version: 13",
         "Unsupported model IR version: 99, max supported IR version: 13"},
        {"Non-zero status code returned while running Reshape node. Name:'/layer1/Reshape' Status Message: "
         "/onnxruntime_src/onnxruntime/core/providers/cpu/tensor/reshape_helper.h:47 "
         "onnxruntime::ReshapeHelper::ReshapeHelper(const onnxruntime::TensorShape&, onnxruntime::TensorShapeVector&, "
         "bool) input_shape_size == size was false. The input tensor cannot be reshaped",
         "Non-zero status code returned while running Reshape node. Name:'/layer1/Reshape' Status Message: "
         "input_shape_size == size was false. The input tensor cannot be reshaped"},
        {"a.cc:12 void a::b<T>::c(int (*)(int)) const [with T = int] text", "text"},
        {"graph.cc:7 no signature (in this one)", "no signature (in this one)"},
        {"graph.cc:7 a::b( never closed", "a::b( never closed"},
        {"cannot open /proc/self/fd/3: no", "cannot open no"},
        {"at 0x7ffd12345678, code 0x10", "at , code 0x10"},
        {"file \"/tmp/x y\" gone", "file \" y\" gone"},
        {"a\n\n  b\tc \x01\x7f\xc3\xa9", "a b c ????"},
        {"/model/layers.0/MatMul and a/b", "/model/layers.0/MatMul and a/b"},
        {"1:2 std.h x.c: y.cc:", "1:2 std.h x.c: y.cc:"},
        {"/", "/"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[512];
        onnx_text_clean(str_from(cases[i].raw), text, sizeof text);
        assert_string_equal(text, cases[i].clean);
    }
}

static void test_fits_any_buffer(void **state)
{
    (void)state;
    static const char raw[] = "abc def /usr/lib/x.so ghi";
    for (size_t capacity = 0; capacity <= sizeof raw; capacity++) {
        char *text = malloc(capacity + 1);
        assert_non_null(text);
        text[capacity] = 'E';
        onnx_text_clean(str_from(raw), text, capacity);
        assert_int_equal(text[capacity], 'E');
        assert_true(capacity == 0 || strlen(text) < capacity);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cleans),
        cmocka_unit_test(test_fits_any_buffer),
    };
    return cmocka_run_group_tests_name("onnx_text", tests, NULL, NULL);
}
