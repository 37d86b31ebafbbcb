// Requests and replies as Longhorn's Go client has them: names, widths, signs, what is left out.
package main

type empty struct{}

type aioCreate struct {
	Name      string `json:"name"`
	Filename  string `json:"filename"`
	BlockSize uint64 `json:"block_size"`
}

type nameOnly struct {
	Name string `json:"name"`
}

type getBdevs struct {
	Name    string `json:"name,omitempty"`
	Timeout uint64 `json:"timeout,omitempty"`
}

type rateLimits struct {
	RwIosPerSec    uint64 `json:"rw_ios_per_sec"`
	RwMbytesPerSec uint64 `json:"rw_mbytes_per_sec"`
	RMbytesPerSec  uint64 `json:"r_mbytes_per_sec"`
	WMbytesPerSec  uint64 `json:"w_mbytes_per_sec"`
}

type ioTypes struct {
	Read        bool `json:"read"`
	Write       bool `json:"write"`
	Unmap       bool `json:"unmap"`
	WriteZeroes bool `json:"write_zeroes"`
	Flush       bool `json:"flush"`
	Reset       bool `json:"reset"`
}

type lvolSpecific struct {
	LvolStoreUUID        string   `json:"lvol_store_uuid"`
	BaseBdev             string   `json:"base_bdev"`
	BaseSnapshot         string   `json:"base_snapshot,omitempty"`
	ThinProvision        bool     `json:"thin_provision"`
	NumAllocatedClusters uint64   `json:"num_allocated_clusters"`
	Snapshot             bool     `json:"snapshot"`
	Clone                bool     `json:"clone"`
	Clones               []string `json:"clones,omitempty"`
	EsnapClone           bool     `json:"esnap_clone"`
}

type aioSpecific struct {
	Filename          string `json:"filename"`
	BlockSizeOverride bool   `json:"block_size_override"`
	Readonly          bool   `json:"readonly"`
	Fallocate         bool   `json:"fallocate"`
}

type bdev struct {
	Name           string     `json:"name"`
	Aliases        []string   `json:"aliases"`
	ProductName    string     `json:"product_name"`
	BlockSize      uint32     `json:"block_size"`
	NumBlocks      uint64     `json:"num_blocks"`
	UUID           string     `json:"uuid,omitempty"`
	CreationTime   string     `json:"creation_time"`
	RateLimits     rateLimits `json:"assigned_rate_limits"`
	Claimed        bool       `json:"claimed"`
	Zoned          bool       `json:"zoned"`
	IoTypes        ioTypes    `json:"supported_io_types"`
	DriverSpecific struct {
		Lvol *lvolSpecific `json:"lvol,omitempty"`
		Aio  *aioSpecific  `json:"aio,omitempty"`
	} `json:"driver_specific,omitempty"`
}

type createLvstore struct {
	BdevName  string `json:"bdev_name"`
	LvsName   string `json:"lvs_name"`
	ClusterSz uint32 `json:"cluster_sz"`
}

type getLvstores struct {
	UUID    string `json:"uuid,omitempty"`
	LvsName string `json:"lvs_name,omitempty"`
}

type lvstore struct {
	UUID              string `json:"uuid"`
	Name              string `json:"name"`
	BaseBdev          string `json:"base_bdev"`
	TotalDataClusters uint64 `json:"total_data_clusters"`
	FreeClusters      uint64 `json:"free_clusters"`
	BlockSize         uint64 `json:"block_size"`
	ClusterSize       uint64 `json:"cluster_size"`
}

type createLvol struct {
	LvsName       string `json:"lvs_name,omitempty"`
	UUID          string `json:"uuid,omitempty"`
	LvolName      string `json:"lvol_name"`
	SizeInMib     uint64 `json:"size_in_mib"`
	ClearMethod   string `json:"clear_method,omitempty"`
	ThinProvision bool   `json:"thin_provision,omitempty"`
}

type getLvols struct {
	LvsUUID string `json:"lvs_uuid,omitempty"`
	LvsName string `json:"lvs_name,omitempty"`
}

type lvol struct {
	Alias             string `json:"alias"`
	UUID              string `json:"uuid"`
	Name              string `json:"name"`
	CreationTime      string `json:"creation_time"`
	IsThinProvisioned bool   `json:"is_thin_provisioned"`
	IsSnapshot        bool   `json:"is_snapshot"`
	IsClone           bool   `json:"is_clone"`
	IsEsnapClone      bool   `json:"is_esnap_clone"`
	IsDegraded        bool   `json:"is_degraded"`
	Lvs               struct {
		Name string `json:"name"`
		UUID string `json:"uuid"`
	} `json:"lvs"`
}

type snapshotLvol struct {
	LvolName     string            `json:"lvol_name"`
	SnapshotName string            `json:"snapshot_name"`
	Xattrs       map[string]string `json:"xattrs,omitempty"`
}

type cloneLvol struct {
	SnapshotName string `json:"snapshot_name"`
	CloneName    string `json:"clone_name"`
}

type renameLvol struct {
	OldName string `json:"old_name"`
	NewName string `json:"new_name"`
}

type resizeLvol struct {
	Name      string `json:"name"`
	SizeInMib uint64 `json:"size_in_mib"`
}

type setParent struct {
	LvolName   string `json:"lvol_name"`
	ParentName string `json:"parent_name"`
}

type xattr struct {
	Name       string `json:"name"`
	XattrName  string `json:"xattr_name"`
	XattrValue string `json:"xattr_value,omitempty"`
}

type getFragmap struct {
	Name   string `json:"name"`
	Offset uint64 `json:"offset"`
	Size   uint64 `json:"size"`
}

type fragmap struct {
	ClusterSize          uint64 `json:"cluster_size"`
	NumClusters          uint64 `json:"num_clusters"`
	NumAllocatedClusters uint64 `json:"num_allocated_clusters"`
	Fragmap              string `json:"fragmap"`
}

type snapshotChecksum struct {
	Checksum uint64 `json:"checksum"`
}

type getRangeChecksums struct {
	Name              string `json:"name"`
	ClusterStartIndex uint64 `json:"cluster_start_index"`
	ClusterCount      uint64 `json:"cluster_count"`
}

type rangeChecksum struct {
	ClusterIndex uint64 `json:"cluster_index"`
	Checksum     uint64 `json:"checksum"`
}

type startCopy struct {
	SrcLvolName string   `json:"src_lvol_name"`
	DstBdevName string   `json:"dst_bdev_name"`
	Clusters    []uint64 `json:"clusters,omitempty"`
}

type operation struct {
	OperationID uint32 `json:"operation_id"`
}

type shallowCopyState struct {
	State            string `json:"state"`
	CopiedClusters   uint64 `json:"copied_clusters"`
	UnmappedClusters uint64 `json:"unmapped_clusters"`
	TotalClusters    uint64 `json:"total_clusters"`
	Error            string `json:"error,omitempty"`
}

type deepCopyState struct {
	State             string `json:"state"`
	ProcessedClusters uint64 `json:"processed_clusters"`
	TotalClusters     uint64 `json:"total_clusters"`
	Error             string `json:"error,omitempty"`
}
