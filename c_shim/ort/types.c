/* Element types, and types as ONNX Runtime writes them. */
#include "api.h"
#include "text.h"

/* Newer than the oldest header that this compiles with; numbers of the C API are never used again. */
enum { FLOAT4E2M1 = 23, UINT2 = 24, INT2 = 25, FLOAT8E8M0 = 26 };

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
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING] = {"string", SIDECAML_STRING},
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL] = {"bool", SIDECAML_BOOL},
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16] = {"float16", SIDECAML_FLOAT16},
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE] = {"double", SIDECAML_FLOAT64},
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32] = {"uint32", SIDECAML_UINT32},
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64] = {"uint64", SIDECAML_UINT64},
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_COMPLEX64] = {"complex64", SIDECAML_COMPLEX64},
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_COMPLEX128] = {"complex128", SIDECAML_COMPLEX128},
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16] = {"bfloat16", SIDECAML_BFLOAT16},
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT8E4M3FN] = {"float8e4m3fn", SIDECAML_FLOAT8E4M3FN},
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT8E4M3FNUZ] = {"float8e4m3fnuz", SIDECAML_FLOAT8E4M3FNUZ},
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT8E5M2] = {"float8e5m2", SIDECAML_FLOAT8E5M2},
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT8E5M2FNUZ] = {"float8e5m2fnuz", SIDECAML_FLOAT8E5M2FNUZ},
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT4] = {"uint4", SIDECAML_UINT4},
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_INT4] = {"int4", SIDECAML_INT4},
    [FLOAT4E2M1] = {"float4e2m1", SIDECAML_FLOAT4E2M1},
    [UINT2] = {"uint2", SIDECAML_UINT2},
    [INT2] = {"int2", SIDECAML_INT2},
    [FLOAT8E8M0] = {"float8e8m0", SIDECAML_FLOAT8E8M0},
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

static void add_element(struct text *text, ONNXTensorElementDataType type) {
    const char *name = (size_t)type < TYPE_COUNT ? types[type].name : NULL;
    if (name)
        text_add(text, "%s", name);
    else
        text_add(text, "type %d", (int)type); /* newer than this header */
}

static OrtStatus *add_type(struct text *text, const OrtTypeInfo *type);

/* NAME(element) of a tensor. */
static OrtStatus *add_tensor(struct text *text, const char *name, const OrtTypeInfo *type) {
    const OrtTensorTypeAndShapeInfo *info = NULL;
    ONNXTensorElementDataType element = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    OrtStatus *status = ort_api->CastTypeInfoToTensorInfo(type, &info);
    if (!status && info) status = ort_api->GetTensorElementType(info, &element);
    text_add(text, "%s(", name);
    add_element(text, element);
    text_add(text, ")");
    return status;
}

/* "element)" of a container; takes the element over. */
static OrtStatus *add_inner(struct text *text, OrtTypeInfo *element) {
    OrtStatus *status = element ? add_type(text, element) : NULL;
    ort_api->ReleaseTypeInfo(element);
    text_add(text, ")");
    return status;
}

static OrtStatus *add_sequence(struct text *text, const OrtTypeInfo *type) {
    const OrtSequenceTypeInfo *info = NULL;
    OrtTypeInfo *element = NULL;
    OrtStatus *status = ort_api->CastTypeInfoToSequenceTypeInfo(type, &info);
    if (!status && info) status = ort_api->GetSequenceElementType(info, &element);
    text_add(text, "seq(");
    return status ? status : add_inner(text, element);
}

static OrtStatus *add_optional(struct text *text, const OrtTypeInfo *type) {
    const OrtOptionalTypeInfo *info = NULL;
    OrtTypeInfo *element = NULL;
    OrtStatus *status = ort_api->CastTypeInfoToOptionalTypeInfo(type, &info);
    if (!status && info) status = ort_api->GetOptionalContainedTypeInfo(info, &element);
    text_add(text, "optional(");
    return status ? status : add_inner(text, element);
}

static OrtStatus *add_map(struct text *text, const OrtTypeInfo *type) {
    const OrtMapTypeInfo *info = NULL;
    ONNXTensorElementDataType key = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    OrtTypeInfo *value = NULL;
    OrtStatus *status = ort_api->CastTypeInfoToMapTypeInfo(type, &info);
    if (!status && info) status = ort_api->GetMapKeyType(info, &key);
    if (!status && info) status = ort_api->GetMapValueType(info, &value);
    text_add(text, "map(");
    add_element(text, key);
    text_add(text, ",");
    return status ? status : add_inner(text, value);
}

static OrtStatus *add_type(struct text *text, const OrtTypeInfo *type) {
    enum ONNXType kind;
    OrtStatus *status = ort_api->GetOnnxTypeFromTypeInfo(type, &kind);
    if (status) return status;
    switch (kind) {
    case ONNX_TYPE_TENSOR:
        return add_tensor(text, "tensor", type);
    case ONNX_TYPE_SPARSETENSOR:
        return add_tensor(text, "sparse_tensor", type);
    case ONNX_TYPE_SEQUENCE:
        return add_sequence(text, type);
    case ONNX_TYPE_MAP:
        return add_map(text, type);
    case ONNX_TYPE_OPTIONAL:
        return add_optional(text, type);
    default:
        text_add(text, "opaque()");
        return NULL;
    }
}

OrtStatus *ort_type_text(const OrtTypeInfo *type, char *text, size_t room) {
    struct text out = text_in(text, room);
    return add_type(&out, type);
}
