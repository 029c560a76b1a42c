//! Who may do what: one table from operation to right, and one from role to rights.
//! Ownership (a bucket's, an upload's) is checked beside it, where the row is at hand.

use dfs_proto::v1::Role;
use dfs_types::{DfsError, ErrorCode};

/// What a role may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Right {
    /// Read files of buckets one may see.
    Read,
    /// Change files of buckets one may see, and make buckets.
    Write,
    /// See nodes, members and the cluster's figures.
    Observe,
    /// Change nodes, members and principals.
    Administer,
    /// What only the cluster itself does.
    Internal,
}

macro_rules! operations {
    ($($name:ident: $right:ident,)*) => {
        /// Every operation of the interfaces and every command of the log.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Operation { $($name,)* }

        impl Operation {
            pub const ALL: &'static [Operation] = &[$(Operation::$name,)*];

            pub fn right(self) -> Right {
                match self { $(Operation::$name => Right::$right,)* }
            }
        }
    };
}

operations! {
    // Interfaces.
    CreateBucket: Write,
    GetBucket: Read,
    ListBuckets: Read,
    SetBucket: Write,
    DeleteBucket: Write,
    InitUpload: Write,
    PlanChunks: Write,
    AppendPage: Write,
    GetUpload: Write,
    CommitUpload: Write,
    AbortUpload: Write,
    PutInline: Write,
    Stat: Read,
    OpenRead: Read,
    List: Read,
    ListVersions: Read,
    Delete: Write,
    Rename: Write,
    Copy: Write,
    ReportReplica: Read,
    GetChunkLocations: Read,
    PutChunkLocation: Administer,
    ListNodes: Observe,
    GetNode: Observe,
    SetNodeState: Administer,
    DrainNode: Administer,
    ResumeNode: Administer,
    ConfirmLoss: Administer,
    RemoveNode: Administer,
    ClusterStatus: Observe,
    ListMembers: Observe,
    AddMember: Administer,
    RemoveMember: Administer,
    RaiseFeatureLevel: Administer,
    CreatePrincipal: Administer,
    ListPrincipals: Administer,
    WhoAmI: Observe,
    Metrics: Observe,
    // Commands no caller asks for.
    Background: Internal,
    // Commands of the planners that an administrator may also cause.
    ChangeLocations: Administer,
}

/// Who asks: a principal, or the cluster itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caller {
    Cluster,
    Principal(Role),
}

/// Whether the caller holds the right this operation needs. Deny by default.
pub fn allowed(caller: Caller, operation: Operation) -> bool {
    use Right::*;
    let right = operation.right();
    match caller {
        // The cluster runs its own machinery and never touches files as such.
        Caller::Cluster => matches!(right, Internal | Administer | Observe),
        Caller::Principal(Role::Admin) => matches!(right, Read | Write | Observe | Administer),
        Caller::Principal(Role::User) => matches!(right, Read | Write | Observe),
        Caller::Principal(Role::Readonly) => matches!(right, Read | Observe),
        Caller::Principal(Role::Unspecified) => false,
    }
}

/// [`allowed`], or the error to answer.
pub fn require(caller: Caller, operation: Operation) -> Result<(), DfsError> {
    if allowed(caller, operation) {
        Ok(())
    } else {
        Err(DfsError::new(
            ErrorCode::PermissionDenied,
            format!("this needs the right {:?}", operation.right()),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles() {
        let may = |role, operation| allowed(Caller::Principal(role), operation);
        assert!(may(Role::User, Operation::PutInline) && !may(Role::User, Operation::RemoveNode));
        assert!(may(Role::Readonly, Operation::OpenRead) && !may(Role::Readonly, Operation::Delete));
        assert!(may(Role::Admin, Operation::RemoveNode) && !may(Role::Admin, Operation::Background));
        assert!(allowed(Caller::Cluster, Operation::Background));
        for operation in Operation::ALL {
            assert!(!may(Role::Unspecified, *operation));
        }
    }
}
