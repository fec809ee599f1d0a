/* Element types, and types as ONNX Runtime writes them. */
#include <stdio.h>
#include <string.h>

#include "api.h"
#include "failure.h"

static const struct {
    const char *name;
    uint32_t dtype;
} types[] = {
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT] = {"float", SIDECAML_FLOAT32},
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8] = {"uint8", SIDECAML_UINT8},
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8] = {"int8", SIDECAML_INT8},
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16] = {"uint16", SIDECAML_UINT16},
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16] = {"int16", SIDECAML_INT16},
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32] = {"int32", SIDECAML_INT32},
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64] = {"int64", SIDECAML_INT64},
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING] = {"string", 0},
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL] = {"bool", SIDECAML_BOOL},
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16] = {"float16", SIDECAML_FLOAT16},
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE] = {"double", SIDECAML_FLOAT64},
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32] = {"uint32", SIDECAML_UINT32},
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64] = {"uint64", SIDECAML_UINT64},
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_COMPLEX64] = {"complex64", 0},
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_COMPLEX128] = {"complex128", 0},
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16] = {"bfloat16", SIDECAML_BFLOAT16},
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT8E4M3FN] = {"float8e4m3fn", 0},
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT8E4M3FNUZ] = {"float8e4m3fnuz", 0},
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT8E5M2] = {"float8e5m2", 0},
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT8E5M2FNUZ] = {"float8e5m2fnuz", 0},
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT4] = {"uint4", 0},
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_INT4] = {"int4", 0},
};
#define TYPE_COUNT (sizeof types / sizeof types[0])

uint32_t dtype_of_onnx(ONNXTensorElementDataType type) {
    return (size_t)type < TYPE_COUNT ? types[type].dtype : 0;
}

ONNXTensorElementDataType onnx_of_dtype(uint32_t dtype) {
    for (size_t i = 0; dtype && i < TYPE_COUNT; i++)
        if (types[i].dtype == dtype) return (ONNXTensorElementDataType)i;
    return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
}

/* --- Texts ------------------------------------------------------------------------------------------------------- */

/* Appends, cutting what does not fit. */
struct text {
    char *start;
    size_t room;
};

static void append(struct text *text, const char *what) {
    size_t used = strlen(text->start);
    snprintf(text->start + used, text->room - used, "%s", what);
}

static void append_element(struct text *text, ONNXTensorElementDataType type) {
    char number[32];
    const char *name = (size_t)type < TYPE_COUNT ? types[type].name : NULL;
    if (!name) snprintf(number, sizeof number, "type %d", (int)type); /* newer than this header */
    append(text, name ? name : number);
}

static int append_type(struct text *text, const OrtTypeInfo *type, struct sidecaml_failure *why);

/* NAME(element) of a tensor. */
static int append_tensor(struct text *text, const char *name, const OrtTypeInfo *type, struct sidecaml_failure *why) {
    const OrtTensorTypeAndShapeInfo *info = NULL;
    ONNXTensorElementDataType element = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    int status = ort_check(ort_api->CastTypeInfoToTensorInfo(type, &info), SIDECAML_E_MODEL_FAILED, why);
    if (status == 0 && info)
        status = ort_check(ort_api->GetTensorElementType(info, &element), SIDECAML_E_MODEL_FAILED, why);
    append(text, name);
    append(text, "(");
    append_element(text, element);
    append(text, ")");
    return status;
}

/* "element)" of a container; takes the element over. */
static int append_inner(struct text *text, OrtTypeInfo *element, struct sidecaml_failure *why) {
    int status = element ? append_type(text, element, why) : 0;
    ort_api->ReleaseTypeInfo(element);
    append(text, ")");
    return status;
}

static int append_sequence(struct text *text, const OrtTypeInfo *type, struct sidecaml_failure *why) {
    const OrtSequenceTypeInfo *info = NULL;
    OrtTypeInfo *element = NULL;
    int status = ort_check(ort_api->CastTypeInfoToSequenceTypeInfo(type, &info), SIDECAML_E_MODEL_FAILED, why);
    if (status == 0 && info)
        status = ort_check(ort_api->GetSequenceElementType(info, &element), SIDECAML_E_MODEL_FAILED, why);
    append(text, "seq(");
    return status < 0 ? status : append_inner(text, element, why);
}

static int append_optional(struct text *text, const OrtTypeInfo *type, struct sidecaml_failure *why) {
    const OrtOptionalTypeInfo *info = NULL;
    OrtTypeInfo *element = NULL;
    int status = ort_check(ort_api->CastTypeInfoToOptionalTypeInfo(type, &info), SIDECAML_E_MODEL_FAILED, why);
    if (status == 0 && info)
        status = ort_check(ort_api->GetOptionalContainedTypeInfo(info, &element), SIDECAML_E_MODEL_FAILED, why);
    append(text, "optional(");
    return status < 0 ? status : append_inner(text, element, why);
}

static int append_map(struct text *text, const OrtTypeInfo *type, struct sidecaml_failure *why) {
    const OrtMapTypeInfo *info = NULL;
    ONNXTensorElementDataType key = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    OrtTypeInfo *value = NULL;
    int status = ort_check(ort_api->CastTypeInfoToMapTypeInfo(type, &info), SIDECAML_E_MODEL_FAILED, why);
    if (status == 0 && info) status = ort_check(ort_api->GetMapKeyType(info, &key), SIDECAML_E_MODEL_FAILED, why);
    if (status == 0 && info) status = ort_check(ort_api->GetMapValueType(info, &value), SIDECAML_E_MODEL_FAILED, why);
    append(text, "map(");
    append_element(text, key);
    append(text, ",");
    return status < 0 ? status : append_inner(text, value, why);
}

static int append_type(struct text *text, const OrtTypeInfo *type, struct sidecaml_failure *why) {
    enum ONNXType kind;
    int status = ort_check(ort_api->GetOnnxTypeFromTypeInfo(type, &kind), SIDECAML_E_MODEL_FAILED, why);
    if (status < 0) return status;
    switch (kind) {
    case ONNX_TYPE_TENSOR:
        return append_tensor(text, "tensor", type, why);
    case ONNX_TYPE_SPARSETENSOR:
        return append_tensor(text, "sparse_tensor", type, why);
    case ONNX_TYPE_SEQUENCE:
        return append_sequence(text, type, why);
    case ONNX_TYPE_MAP:
        return append_map(text, type, why);
    case ONNX_TYPE_OPTIONAL:
        return append_optional(text, type, why);
    default:
        append(text, "opaque()");
        return 0;
    }
}

int ort_type_text(const OrtTypeInfo *type, char *text, size_t room, struct sidecaml_failure *why) {
    text[0] = '\0';
    return append_type(&(struct text){.start = text, .room = room}, type, why);
}
