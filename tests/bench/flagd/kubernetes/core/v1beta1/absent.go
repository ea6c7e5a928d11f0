// Package v1beta1 stands where flagd's Kubernetes source looks for its resource. The module that has it is not served by the Go module
// proxy; no measurement reads flags from Kubernetes, and a flagd built with this one says so when it is asked to.
package v1beta1

import (
	"errors"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is what flagd names when it asks for the resource.
var GroupVersion = schema.GroupVersion{Group: "core.openfeature.dev", Version: "v1beta1"}

// FeatureFlag has the one field that flagd reads.
type FeatureFlag struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec struct {
		FlagSpec map[string]any `json:"flagSpec,omitempty"`
	} `json:"spec,omitempty"`
}

// AddToScheme is what flagd calls first for a Kubernetes source.
func AddToScheme(*runtime.Scheme) error {
	return errors.New("this flagd was built for a benchmark, without its Kubernetes source")
}
